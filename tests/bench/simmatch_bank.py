"""What a large memory bank costs: SimMatch's loss, backward and write for 1,000 classes, B 64, mu 5, from 8,007 rows to ImageNet's tenth.

    python tests/bench/simmatch_bank.py

For each number of rows: megabytes of buffers, milliseconds (median of 5, the networks left out), and microseconds a row, which stay
level where the cost is linear.
"""
import resource
import statistics
import time

import torch

from sslkit import SimMatch
from sslkit.records import Batch, Out, Spec

B, MU, CLASSES, DIM = 64, 5, 1000, 128


class Given:
    """Nets that answer with noise: what is measured is the method."""

    def __call__(self, *views, grad=True, **options):
        return tuple(Out(torch.randn(len(v), CLASSES, requires_grad=grad), torch.empty(len(v), 1),
                         {"emb": torch.randn(len(v), DIM, requires_grad=grad)}) for v in views)


def main():
    torch.manual_seed(0)
    print(f"{'rows':>8}  {'buffers':>9}  {'step':>9}  {'a row':>8}  {'peak memory of the process':>26}")
    for rows in (8_007, 16_014, 32_029, 64_058, 128_116):
        method = SimMatch(da_length=256)
        method.setup(Spec(CLASSES, 16, torch.arange(rows) % CLASSES, 10, B, MU, 10))
        method.written.fill_(True)
        times = []
        for _ in range(6):
            i = torch.randint(rows, (B,))
            u = torch.empty(MU * B, 1)
            batch = Batch(torch.empty(B, 1), method.y[i], (u, u), i, torch.arange(MU * B), {})
            begin = time.perf_counter()
            method.loss(Given(), batch, torch.tensor(0.5)).loss.backward()
            times.append(1000 * (time.perf_counter() - begin))
        ms, megabytes = statistics.median(times[1:]), sum(b.nbytes for b in method.buffers()) / 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(f"{rows:8,}  {megabytes:6.1f} MB  {ms:6.0f} ms  {1000 * ms / rows:5.2f} us  {peak:23,.0f} MB")


if __name__ == "__main__":
    main()
