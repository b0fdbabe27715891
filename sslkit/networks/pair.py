"""Nets: the student and its EMA teacher, which a method calls."""
import copy
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from sslkit.networks.network import Network
from sslkit.processes import average_, world
from sslkit.records import Out


class Nets:
    """The student and its EMA teacher, which starts as a copy of it (no bias correction). Call it with the views.

    ema_buffers: "copy" the student's BatchNorm buffers or "average" them like the weights (EMAN). dtype: that of the
    backbone, float32 or bfloat16.
    """
    def __init__(self, network: Network, *, ema_decay: float = 0.999, bn_momentum: float = 0.001,
                 ema_buffers: Literal["copy", "average"] = "copy", dtype: torch.dtype = torch.float32):
        network.find_norms()
        self.student, self.teacher = network, copy.deepcopy(network).requires_grad_(False)
        self.ema_decay, self.bn_momentum, self.ema_buffers, self.dtype = ema_decay, bn_momentum, ema_buffers, dtype
        self.weights = _floats(self.teacher.parameters()), _floats(self.student.parameters())
        self.buffers = _floats(self.teacher.buffers()), _floats(self.student.buffers())

    def __call__(self, *views: Tensor, teacher: bool = False, grad: bool = True,
                 bn: Literal["update", "batch", "running"] | None = None, dtype: torch.dtype | None = None,
                 ) -> tuple[Out, ...]:
        """One forward of all `views` together, each (n_v, channels, H, W); returns one Out for each view.

        bn: normalise by this batch and "update" the running statistics (default), by this "batch" alone (the teacher's
        default), or by the "running" ones. dtype: the backbone's in this pass (default: as in every pass). ValueError
        for a teacher that updates: its statistics are the loop's.
        """
        net, bn = (self.teacher, bn or "batch") if teacher else (self.student, bn or "update")
        if teacher and bn == "update":
            raise ValueError("a pass of the teacher must not write into it: take bn=\"batch\" or \"running\"")
        net.norm_mode(bn, self.bn_momentum)
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            out = net(torch.cat(views) if len(views) > 1 else views[0], dtype or self.dtype)
        if len(views) == 1:
            return (out,)
        sizes = [len(v) for v in views]
        heads = {name: h.split(sizes) for name, h in out.heads.items()}
        return tuple(Out(logits, feat, {name: h[k] for name, h in heads.items()})
                     for k, (logits, feat) in enumerate(zip(out.logits.split(sizes), out.feat.split(sizes))))

    def meet(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """Between backward and the optimiser's step: gradients and running statistics become their means over the
        processes of the run. Returns the sums () of all of them."""
        keys, grads = [*sums], [p.grad for p in self.student.parameters() if p.grad is not None]
        values = torch.stack([sums[key] for key in keys])
        average_([*grads, *self.buffers[1], values])
        return dict(zip(keys, (values * world()).unbind()))

    @torch.no_grad()
    def update_ema(self) -> None:
        """teacher = ema_decay * teacher + (1 - ema_decay) * student, after each optimiser step."""
        torch._foreach_lerp_(*self.weights, 1 - self.ema_decay)
        teacher_floats, student_floats = self.buffers
        if teacher_floats and self.ema_buffers == "copy":     # a network without BatchNorm has none
            torch._foreach_copy_(teacher_floats, student_floats)
        elif teacher_floats:
            torch._foreach_lerp_(teacher_floats, student_floats, 1 - self.ema_decay)


def _floats(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Those that can be averaged: integers, such as a counter, cannot."""
    return [t for t in tensors if t.is_floating_point()]
