"""Several processes of one run on this machine, as torchrun starts them; `sslkit train --processes N` is this."""
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

from sslkit.errors import Left

PATIENCE = 5                          # seconds in which the others notice that one has ended


def launch(words: list[str], count: int) -> int:
    """Run `sslkit WORDS` in `count` processes; the exit code of the one that failed, or 0. All of them stop when this
    process is asked to stop, or is gone. What the first one prints is seen; of the others, why one failed."""
    from sslkit.processes import WATCHED, cores

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"OMP_NUM_THREADS": str(max(1, cores() // count)), **os.environ, WATCHED: "1", "WORLD_SIZE": str(count),
              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    logs = [tempfile.TemporaryFile() for _ in range(count)]
    children = [subprocess.Popen(
        [sys.executable, "-m", "sslkit", *words], stdin=subprocess.PIPE, stderr=logs[rank] if rank else None,
        stdout=subprocess.DEVNULL if rank else None, start_new_session=True,
        env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)]

    asked = []

    def stop(number: int, frame: object) -> None:
        asked.append(number)
        for child in children:
            child.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while all(child.poll() is None for child in children):
            time.sleep(0.1)
        until = time.monotonic() + PATIENCE
        failed = [rank for rank, child in enumerate(children) if child.poll()]
        while any(child.poll() is None for child in children) and (not failed or time.monotonic() < until):
            time.sleep(0.1)
            failed += [rank for rank, child in enumerate(children) if child.poll() and rank not in failed]
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                child.kill()
            child.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    codes = [child.returncode for child in children]
    if not failed or 0 in failed and codes[0] > 0 and codes[0] != Left.exit_code:      # the first has said why itself
        return codes[0]
    rank = next((rank for rank in failed if codes[rank] != Left.exit_code), failed[0])
    code = codes[rank]
    if asked and code == -signal.SIGTERM:                                    # it had not begun to train
        print("\nstopped", file=sys.stderr)
        return 130
    if code < 0:
        print(f"sslkit: process {rank} of the run was killed by {signal.Signals(-code).name}; if it had begun to "
              "train, the same command with --resume continues from what was saved last", file=sys.stderr)
    elif rank:
        logs[rank].seek(0)
        lines = logs[rank].read().decode(errors="replace").strip().splitlines() or [f"it ended with code {code}"]
        last = next((line for line in reversed(lines) if line.startswith("sslkit: ")), lines[-1])
        print(f"sslkit: process {rank} of the run: {last.removeprefix('sslkit: ')}", file=sys.stderr)
    return 1 if code < 0 or code == Left.exit_code else code
