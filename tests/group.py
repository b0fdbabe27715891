"""What the processes of test_processes.py do: a few steps of every method; python group.py RANK WORLD PORT FOLDER METHODS."""
import os
import sys
from pathlib import Path

import torch

rank, world, port, folder, names = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), sys.argv[5:]
os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
torch.set_num_threads(1)

from sslkit import Config, load, processes, split  # noqa: E402
from sslkit.methods import method_class  # noqa: E402
from sslkit.networks import Network  # noqa: E402
from sslkit.training.loop import set_up, take_step  # noqa: E402

STEPS = 20
usual = Network.norm_mode
Network.norm_mode = lambda self, bn, momentum: usual(self, "running", 0.0)         # the same statistics for all rows

processes.join("cpu")
data = split(load("digits"), labels=10, seed=0)
everything = {}
for title in names:
    name, _, flags = title.partition(":")
    arguments = {key: float(value) if value[0].isdigit() else value
                 for key, value in (pair.split("=") for pair in flags.split(",") if pair)}
    method = method_class(name)(**arguments)
    config = Config(batch_size=8, mu=2, steps=STEPS, lr=0.03, seed=3).resolve(data, torch.device("cpu"))
    nets, optimizer, feed = set_up(method, data, config)
    found = []
    for step in range(STEPS):
        sums = take_step(method, nets, optimizer, feed, step)
        found.append((sums, [p.grad.clone() for p in nets.student.parameters() if p.grad is not None]))
    everything[title] = {"steps": found, "method": method.state_dict(), "student": nets.student.state_dict()}
torch.save(everything, folder / f"{rank}-of-{world}.pt")
processes.leave()
