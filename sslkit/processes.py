"""The processes that train one run together: each takes an equal part of every batch, with a network of its own that
is kept equal. A process alone is a group of one: then nothing here does anything.

torchrun, or `sslkit train --processes N`, starts them; join() finds the others. Rows of a batch see each other through
all_mean() and all_rows() alone.
"""
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sslkit.errors import InputError, Left, require

GONE = "[Cc]onnection|[Ss]ocket|[Pp]ipe|peer"          # in what gloo says of a process that has ended
WAIT = timedelta(days=7)          # for another process, which may decode or label for long; who began them sees one end
WATCHED = "SSLKIT_WATCHED"        # set by `sslkit train --processes N`: standard input closes when the run should stop


def cores() -> int:
    """How many threads of this process may run at once."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this one, from 0. The first writes the files."""
    return dist.get_rank() if world() > 1 else 0


def asked_for(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes torchrun, or who else started this one, wants: 1 where nobody did."""
    return int(environment.get("WORLD_SIZE", 1)) if "RANK" in environment else 1


def join(device: str) -> str:
    """Find the other processes, if whoever started this one wants several. Returns the device of this one: on "cuda"
    the GPU of its number on this machine. Raises InputError where there is no such GPU, and where the processes do not
    find each other."""
    if asked_for() == 1:
        return device
    local = int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    kind = device.split(":")[0]
    if kind == "cuda" or kind == "auto" and torch.cuda.is_available():
        require(device in ("cuda", "auto"), f"each process has a GPU of its own: give --device cuda, not {device}")
        count = torch.cuda.device_count()
        require(count > 0, "this machine has no GPU: give --device cpu")
        require(local < count, f"process {local} has no GPU: this machine has {count}, and each process needs its own; "
                f"start at most {count}")
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    else:
        require(kind in ("auto", "cpu"), f"several processes train on GPUs of NVIDIA or on the CPU, not on {device}: "
                "give --device cpu, or start one process")
        device = "cpu"
    try:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=WAIT)
    except (RuntimeError, ValueError) as error:
        address = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        used = "EADDRINUSE" in str(error) or "in use" in str(error)
        mend = "run it again" if WATCHED in os.environ else "give torchrun another --master-port"
        why = f"another program uses this port; {mend}" if used else str(error)[:200]
        raise InputError(f"the processes of this run cannot meet at {address}: {why}") from error
    return device


def leave() -> None:
    """Leave the group, if there is one."""
    if world() > 1:
        with suppress(RuntimeError):
            dist.destroy_process_group()


@contextmanager
def others_needed() -> Iterator[None]:
    """What another process takes part in. Raises Left where one of them has ended."""
    try:
        yield
    except RuntimeError as error:             # gloo has no class of its own for it
        if not isinstance(error, dist.DistError) and not re.search(GONE, str(error)):
            raise
        raise Left("another process of this run has ended: see its own message, if it left one") from error


class _AllMean(torch.autograd.Function):
    """The mean over the processes. Gradients are averaged over them in the end, so each gets the mean of theirs."""
    @staticmethod
    def forward(ctx, t: Tensor) -> Tensor:
        t = t.detach().clone(memory_format=torch.contiguous_format)
        with others_needed():
            dist.all_reduce(t)
        return t / world()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _AllMean.apply(grad)


class _AllRows(torch.autograd.Function):
    """The rows of all processes. Their gradients are averaged in the end, so each row gets the sum of theirs."""
    @staticmethod
    def forward(ctx, t: Tensor) -> Tensor:
        t = t.detach().contiguous()
        parts = [torch.empty_like(t) for _ in range(world())]
        with others_needed():
            dist.all_gather(parts, t)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return own(_AllMean.apply(grad) * world())


def all_mean(t: Tensor) -> Tensor:
    """The mean of `t` over the processes, with gradient; t itself where there is one process."""
    return t if world() == 1 else _AllMean.apply(t)


def all_rows(t: Tensor) -> Tensor:
    """(world * n, ...): the rows of `t` (n, ...) of all processes, in their order, with gradient."""
    return t if world() == 1 else _AllRows.apply(t)


def own(t: Tensor, axis: int = 0) -> Tensor:
    """This process's part of `t`, which has rows for all of them along `axis`."""
    return t.tensor_split(world(), axis)[rank()]


@torch.no_grad()
def average_(tensors: list[Tensor]) -> None:
    """Each tensor becomes its mean over the processes: float32, on one device, in one message."""
    if world() == 1 or not tensors:
        return
    flat = torch.cat([t.reshape(-1) for t in tensors])
    with others_needed():
        dist.all_reduce(flat)
    for t, new in zip(tensors, flat.div_(world()).split([t.numel() for t in tensors])):
        t.copy_(new.view_as(t))


def wait(number: int = 0) -> bool:
    """Until every process is here. Have they all called it with the same number?"""
    if world() == 1:
        return True
    numbers = all_rows(torch.tensor([number], device="cuda" if dist.get_backend() == "nccl" else "cpu"))
    return bool((numbers == number).all())


def in_turn(do: Callable[[], Any]) -> Any:
    """do(), in the first process before the others: they find what it has kept."""
    if rank() == 0:
        found = do()
    wait()
    return found if rank() == 0 else do()


def by_first(do: Callable[[], Any]) -> None:
    """do() in the first process alone; the others wait until it is done."""
    if rank() == 0:
        do()
    wait()
