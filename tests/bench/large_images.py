"""Images that stay in a file: memory and speed of batches, beside the same images in memory.

    python tests/bench/large_images.py FOLDER [SIDE [STEPS]]

FOLDER: as `--data folder:` takes it. Its images are decoded at SIDE pixels (default: 128) into the cache; then processes
of their own take STEPS batches (default: 60; B 16, mu 7, FixMatch's views) with the images in their file, in the
system's memory and not yet in it, and with the images copied into the process's memory first.
"""
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median


def anonymous() -> float:
    """MB of memory that belong to this process alone (RssAnon)."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) / 1024


def watched() -> list[float]:
    """A list whose last entry is the largest anonymous() so far."""
    most = [anonymous()]

    def watch() -> None:
        while True:
            most[0] = max(most[0], anonymous())
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()
    return most


def measure(kind: str, folder: str, side: int, steps: int) -> dict:
    import torch

    import sslkit
    from sslkit.data import cache

    torch.set_num_threads(1)
    most, begin = watched(), time.monotonic()
    data = sslkit.load(f"folder:{folder}", size=side)
    loaded = time.monotonic() - begin
    if kind == "load":
        return {"seconds": loaded, "images": len(data.images), "GB": data.images.nbytes / 1e9, "RssAnon MB": most[0]}
    if kind == "memory":
        from dataclasses import replace
        data = replace(data, images=data.images.clone())
        import sslkit.training.feed as room
        room.LARGE = 2**60
    if kind == "cold":
        for file in cache.home().glob("*/images*"):
            with open(file) as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    data = sslkit.split(data, 10 * data.num_classes)
    config = sslkit.Config(batch_size=16, mu=7, network="wrn-10-2").resolve(data, torch.device("cpu"))
    feed, times = sslkit.Feed(data, sslkit.FixMatch(), config), []
    for step in range(steps):
        begin = time.perf_counter()
        batch = feed(step)
        times.append(time.perf_counter() - begin)
        time.sleep(0.2 * times[-1])                  # the network's turn, in which the next images come
    size = sum(x.nbytes for x in (batch.x, *batch.u)) / 2**20
    return {"ms a batch": 1000 * median(times), "mean ms": 1000 * sum(times) / steps, "RssAnon MB": most[0], "batch MB": size}


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        print(json.dumps(measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))))
        raise SystemExit
    folder, side, steps = [*sys.argv[1:], *("", "128", "60")[len(sys.argv) - 1:]]
    rows: dict[str, list[dict]] = {}
    for kind in ("load", *("cold", "file", "memory") * 3):
        words = [sys.executable, __file__, "--one", kind, folder, side, steps]
        rows.setdefault(kind, []).append(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    for kind, found in rows.items():
        print(kind, {name: round(median(row[name] for row in found), 1) for name in found[0]})
