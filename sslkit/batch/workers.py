"""The workers that do the jobs: as many as this machine can run, or those of a dask scheduler that somebody started."""
import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dask
import psutil
import torch
from distributed import Client, LocalCluster
from distributed.comm import connect

from sslkit.errors import require
from sslkit.processes import cores
from sslkit.training import Machine

CONNECT_SECONDS = 5
JOB_BYTES = 2e9                      # of memory: a lesson's kernel takes up to 1.2 GB, the process around it 0.6
CONFIG = {"distributed.scheduler.worker-ttl": None, "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
          "distributed.scheduler.allowed-failures": 0}


def workers_and_threads(jobs: int, workers: int | None = None) -> tuple[int, int]:
    """How many workers, and threads of each, for so many jobs here: one a GPU, else what cores and memory allow."""
    devices = torch.cuda.device_count() or int(Machine().torch_device().type != "cpu")
    fit = int(psutil.virtual_memory().available / JOB_BYTES)
    workers = max(1, min(workers or devices or min(cores(), fit), jobs))
    return workers, max(1, min(cores() // workers, torch.get_num_threads()))      # no more than OMP_NUM_THREADS


def gpus() -> list[str]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return names or [*map(str, range(torch.cuda.device_count()))]


def reachable(scheduler: str) -> None:
    """Raise InputError unless a dask scheduler answers at that address. (A Client that fails keeps trying.)"""
    async def shake_hands() -> None:
        comm = await connect(scheduler, timeout=CONNECT_SECONDS)
        await comm.close()

    errors = []

    def ask() -> None:                                  # in a thread of its own: a notebook has an event loop already
        try:
            asyncio.run(asyncio.wait_for(shake_hands(), CONNECT_SECONDS + 1))
        except Exception as error:                      # whatever listens there may send anything
            errors.append(str(error).splitlines()[0] if str(error) else "no answer")

    with dask.config.set(CONFIG):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    require(not errors, f"the scheduler at {scheduler} cannot be reached: {''.join(errors)}")


@contextmanager
def connected(scheduler: str | None, workers: int) -> Iterator[Client]:
    """A client of the scheduler at that address, or of so many workers in this process, which only wait for the
    processes of their jobs. Their status pages, dask's own, are the only sockets, for this machine alone."""
    with dask.config.set(CONFIG):
        if scheduler is not None:
            with Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False) as client:
                yield client
            return
        here = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0",
                "scheduler_kwargs": {"dashboard": False}}
        with (LocalCluster(n_workers=workers, threads_per_worker=1, processes=False, memory_limit=0, **here,
                           silence_logs=logging.CRITICAL) as cluster,
              Client(cluster, set_as_default=False) as client):
            yield client


def worker_count(client: Client) -> int:
    """How many workers the scheduler has now."""
    return len(client.scheduler_info(n_workers=-1)["workers"])
