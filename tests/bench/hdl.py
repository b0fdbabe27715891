"""Seconds and peak memory of HDL: rows of 128 features around ten centres, 250 of them labelled.

    python tests/bench/hdl.py [ROWS] [K] [MODE] [METRIC]          # default 50000 10 layer cosine; K may be auto
"""
import resource
import sys
import time

import torch

from sslkit.labelers.hdl import hdl


def main(n: int, k: str, mode: str, metric: str) -> None:
    g = torch.Generator().manual_seed(0)
    truth = torch.randint(10, (n,), generator=g)
    points = torch.randn(10, 128, generator=g)[truth] * 0.6 + torch.randn(n, 128, generator=g)
    y, begin = torch.where(torch.arange(n) < 250, truth, -1), time.monotonic()
    found = hdl(points, y, k=k if k == "auto" else int(k), mode=mode, metric=metric)
    seconds, peak = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{n:,} rows, k {k} ({found.info['k']}), {mode}, {metric}: {seconds:.1f} s, {found.info['rounds']:,} rounds, "
          f"{found.info['copied']:,} copied, {(found.label == truth).float().mean():.1%} right, peak {peak:.2f} GiB")


if __name__ == "__main__":
    given, defaults = sys.argv[1:], ["50000", "10", "layer", "cosine"]
    rows, *others = given + defaults[len(given):]
    main(int(rows), *others)
