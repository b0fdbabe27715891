"""Seconds and peak memory of each clustering for KD-FixMatch's trusted subset: rows of 128 features, ten centres.

    python tests/bench/clustering.py [ROWS]          # a quarter, half and all of them, default 100,000

Each runs in its own process, so that the peak is its own. Spectral clustering takes at most 20,000 rows.
"""
import resource
import subprocess
import sys
import time

KINDS = ("dec", "kmeans", "dbscan", "spectral")
MOST = {"spectral": 20_000}


def one(kind: str, n: int) -> None:
    import torch

    from sslkit.labelers import cluster_agree

    g = torch.Generator().manual_seed(0)
    truth = torch.randint(10, (n,), generator=g)
    features = torch.randn(10, 128, generator=g)[truth] * 0.5 + torch.randn(n, 128, generator=g) * 0.5
    p = torch.nn.functional.one_hot(torch.where(torch.rand(n, generator=g) < 0.1, (truth + 1) % 10, truth), 10).float()
    y = torch.where(torch.arange(n) < 4000, truth, -1)
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    found = cluster_agree(p, features, y, clustering=kind)
    seconds, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    right = (found.label == truth)[found.label >= 0].float().mean().item()
    print(f"{kind:9} {n:8,} rows {seconds:7.1f} s   peak {after / 2**20:.2f} GiB, {(after - before) / 2**20:.2f} of it "
          f"for the clustering   trusted {int((found.label >= 0).sum()):,}, {right:.1%} right", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        one(sys.argv[1], int(sys.argv[2]))
    else:
        most = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
        for kind in KINDS:
            for n in sorted({min(n, MOST.get(kind, n)) for n in (most // 4, most // 2, most)}):
                subprocess.run([sys.executable, __file__, kind, str(n)], check=True)
