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
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.comm import connect

from sslkit.errors import require
from sslkit.training import Machine

CONNECT_SECONDS = 5
JOB_BYTES = 2e9                      # of memory: a lesson's kernel takes up to 1.2 GB, the processes around it 0.6 each
CONFIG = {"distributed.scheduler.worker-ttl": None, "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
          "distributed.scheduler.allowed-failures": 0}


def workers_and_threads(jobs: int, workers: int | None = None) -> tuple[int, int]:
    """How many workers, and threads of each, for so many jobs here: one a GPU, else what cores and memory allow."""
    devices = torch.cuda.device_count() or int(Machine().torch_device().type != "cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fit = int(psutil.virtual_memory().available / JOB_BYTES)
    workers = max(1, min(workers or devices or min(cores, fit), jobs))
    return workers, max(1, min(cores // workers, torch.get_num_threads()))      # no more than OMP_NUM_THREADS


def gpu_environments(workers: int) -> list[dict[str, str]]:
    """The environment of each worker of this machine: each sees one of the GPUs that this process sees."""
    gpus = torch.cuda.device_count()
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name] or [*map(str, range(gpus))]
    return [{"CUDA_VISIBLE_DEVICES": names[k % gpus]} if gpus else {} for k in range(workers)]


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
    """A client of the scheduler at that address, or of our own cluster with so many workers."""
    before = dict(os.environ)
    with dask.config.set(CONFIG):
        if scheduler is not None:
            with Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False) as client:
                yield client
            return
        # the nanny's host is its worker's too: without it a worker listens on all addresses, and anybody runs code here
        alike = {"host": "127.0.0.1", "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL,
                 "preload": ["sslkit.batch.process"]}
        spec = {k: {"cls": Nanny, "options": alike | {"env": env}} for k, env in enumerate(gpu_environments(workers))}
        quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "port": 0}
        try:
            with SpecCluster(spec, {"cls": Scheduler, "options": quiet}, silence_logs=logging.CRITICAL) as cluster:
                with Client(cluster, set_as_default=False) as client:
                    yield client
        finally:                                        # dask sets variables for its workers in this process
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)


def worker_count(client: Client) -> int:
    """How many workers the scheduler has now."""
    return len(client.scheduler_info(n_workers=-1)["workers"])
