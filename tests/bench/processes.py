"""Two processes of one thread beside one of one thread and one of two: images a second, WRN-28-2, 32 px, mu 7.

    python tests/bench/processes.py [B [ROUNDS [STEPS]]]

In each round (default: 3) all three take STEPS (default: 3) steps of FixMatch with B labelled images (default: 64), one after another;
the first step of each is not counted. Medians over rounds.
"""
import os
import socket
import subprocess
import sys
import time
from statistics import median

KINDS = {"1 process, 1 thread": (1, 1), "2 processes, 1 thread each": (2, 1), "1 process, 2 threads": (1, 2)}


def work(threads: int, size: int, steps: int) -> None:
    import torch

    from sslkit import Config, FixMatch, processes
    from sslkit.training.bench import photographs
    from sslkit.training.loop import set_up, take_step

    torch.set_num_threads(threads)
    processes.join("cpu")
    data = photographs(2000, 32, torch.device("cpu"), 40)
    nets, optimizer, feed = set_up(FixMatch(), data, Config(batch_size=size, mu=7, network="wrn-28-2").resolve(data, torch.device("cpu")))
    times = []
    for step in range(steps + 1):
        begin = time.perf_counter()
        take_step(feed.method, nets, optimizer, feed, step)
        processes.wait()
        times.append(time.perf_counter() - begin)
    if processes.rank() == 0:
        print(15 * size / median(times[1:]))
    processes.leave()


def run(count: int, threads: int, size: int, steps: int) -> float:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    group = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} if count > 1 else {}
    words = [sys.executable, __file__, "--one", *map(str, (threads, size, steps))]
    all_of_them = [subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, **group, **({"RANK": str(k)} if group else {})})
                   for k in range(count)]
    return float([process.communicate()[0] for process in all_of_them][0])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        work(*map(int, sys.argv[2:]))
        raise SystemExit
    size, rounds, steps = (int(word) for word in [*sys.argv[1:], *("64", "3", "3")[len(sys.argv) - 1:]])
    found = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind, (count, threads) in KINDS.items():
            found[kind].append(run(count, threads, size, steps))
    slow = median(found["1 process, 1 thread"])
    for kind, values in found.items():
        print(f"{kind}: {median(values):.0f} images a second, {median(values) / slow:.2f} times")
