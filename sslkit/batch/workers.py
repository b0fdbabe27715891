"""Where jobs are done: workers of this machine, as many as it bears, or those of a dask scheduler that somebody has started."""
import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dask
import psutil
import torch
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.comm import connect

from sslkit.errors import require
from sslkit.training import Machine

CONNECT_SECONDS = 5
BYTES_OF_ONE = 2e9                   # of memory for a job: a lesson's kernel takes up to 1.2 GB, the processes about it 0.6 each
CONFIG = {"distributed.scheduler.worker-ttl": None, "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
          "distributed.scheduler.allowed-failures": 0}


def shape(count: int, workers: int | None = None) -> tuple[int, int]:
    """Workers and threads of each, for so many jobs on this machine: one a GPU, else as many as cores and memory allow."""
    devices = torch.cuda.device_count() or int(Machine().torch_device().type != "cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fit = int(psutil.virtual_memory().available / BYTES_OF_ONE)
    workers = max(1, min(workers or devices or min(cores, fit), count))
    return workers, max(1, min(cores // workers, torch.get_num_threads()))      # whoever sets OMP_NUM_THREADS wants no more


def sees(workers: int) -> list[dict[str, str]]:
    """The environment of each worker of this machine: of several GPUs each sees one of those that we see."""
    gpus = torch.cuda.device_count()
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name] or [str(k) for k in range(gpus)]
    return [{"CUDA_VISIBLE_DEVICES": names[k % gpus]} if gpus else {} for k in range(workers)]


def reachable(scheduler: str) -> None:
    """Raise InputError unless a dask scheduler answers there. (A Client that fails lingers.)"""
    async def shake_hands() -> None:
        comm = await connect(scheduler, timeout=CONNECT_SECONDS)
        await comm.close()

    said = []

    def ask() -> None:                                  # in a thread of its own: a notebook has an event loop already
        try:
            asyncio.run(asyncio.wait_for(shake_hands(), CONNECT_SECONDS + 1))
        except Exception as error:                      # whatever listens there may send anything
            said.append(str(error).splitlines()[0] if str(error) else "no answer")

    with dask.config.set(CONFIG):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    require(not said, f"the scheduler at {scheduler} cannot be reached: {''.join(said)}")


@contextmanager
def connected(scheduler: str | None, workers: int) -> Iterator[Client]:
    """A client of the scheduler at that address, or of a cluster of our own."""
    before = dict(os.environ)
    with dask.config.set(CONFIG):
        if scheduler is not None:
            with Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False) as client:
                yield client
            return
        # the nanny's host is its worker's too; without one a worker listens on every address, and whoever reaches it runs code here
        alike = {"host": "127.0.0.1", "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL, "preload": ["sslkit.batch.process"]}
        spec = {k: {"cls": Nanny, "options": alike | {"env": only}} for k, only in enumerate(sees(workers))}
        quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "port": 0}
        try:
            with SpecCluster(spec, {"cls": Scheduler, "options": quiet}, silence_logs=logging.CRITICAL) as cluster:
                with Client(cluster, set_as_default=False) as client:
                    yield client
        finally:                                        # dask sets threads and more for its workers, in this process
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)


def hands(client: Client) -> int:
    """How many workers there are."""
    return len(client.scheduler_info(n_workers=-1)["workers"])
