"""What is installed: every package that is imported is declared, and no file of ours is left behind."""
import ast
import re
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

import sslkit

PACKAGE = Path(sslkit.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> dict[str, str]:
    """Top-level names that the package imports from others, and a file that does."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0]: path.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found[node.module.partition(".")[0]] = path.name
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names | {"sslkit"}}


def test_every_package_that_is_imported_is_declared():
    lines = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["heic"]
    declared = {canonical(re.match(r"[\w.-]+", line)[0]) for line in lines}
    names, sources = imported(), packages_distributions()
    missing = {name: file for name, file in names.items() if not declared & set(map(canonical, sources.get(name, [name])))}
    assert not missing and {"torch", "dask", "psutil", "jinja2"} <= set(names)


def test_files_that_are_no_code_are_installed_too():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    others = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".md")]
    left = [path.name for path in others
            if not any(fnmatch(path.name, pattern) for pattern in patterns.get(f"sslkit.{path.parent.name}", []))]
    assert not left and {"page.html", "hdl_gains.csv"} <= {path.name for path in others}
