"""python -m sslkit: the command line."""
from sslkit.cli import main

raise SystemExit(main())
