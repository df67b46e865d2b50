"""A policy too large for one device: its trained weights, their gradients and Adam's moments are
divided among the run's processes (torch's fully_shard, FSDP2), layer by layer.

A layer's weights are whole only while it is at work. Drawing does a layer's work at every token, so
it and scoring read a whole copy in the dtype of products, gathered once a round; where that does
not fit either, its layers stay in the host's memory (`models.away`).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from suder import ranks
from suder.models.away import moved
from suder.models.base import Hidden


class Divided:
    """A model divided among the processes, and whole copies of it.

    Args:
        model: an adapter on the CPU, whole; it becomes `policy`.
        device: where each process has its part.
        away: the copies keep their layers in the host's memory; ones shared with adapters stay.

    Attributes:
        policy: to be trained; it runs when all processes run it, and no part of it by itself.
        start: whole and frozen.
        reader: whole; `refresh` brings it up to date with the policy.
    """

    def __init__(self, model: Any, device: str, away: bool = False) -> None:
        self.hollow = _hollow(model)
        self.start, self.reader = (_whole_copy(model) for _ in range(2))
        self.host: dict[str, Tensor] = {}  # of the reader
        for twin in (self.start, self.reader):
            twin.copies_away = away
            if away and not model.has_adapters():
                self.host = moved(twin, device)
            else:
                twin.to(device)
        frozen = {one for one in model.parameters() if not one.requires_grad}
        for one in frozen:  # on every device whole
            one.data = one.data.to(device)
        model.register_forward_hook(_out_of_reach)
        mesh = init_device_mesh(torch.device(device).type, (ranks.count(),))
        layers = [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]
        for module in (*layers, model):
            if any(one.requires_grad for one in module.parameters()):
                fully_shard(module, mesh=mesh, ignored_params=frozen)
        for module in model.modules():
            if isinstance(module, FSDPModule):  # sums, for every loss is a part of all's
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        self.policy = model

    @torch.no_grad()
    def refresh(self) -> None:
        mine = dict(self.reader.named_parameters(remove_duplicate=False)) | self.host
        for name, param in self.policy.named_parameters(remove_duplicate=False):
            if ranks.divided(param):
                mine[name].copy_(ranks.whole(ranks.local(param), param))

    @torch.no_grad()
    def plain(self) -> Any:
        """The policy as one process would have it, on the CPU of the first; elsewhere hollow."""
        found: dict[int, Tensor | None] = {}
        weights = {}
        for name, param in self.policy.named_parameters(remove_duplicate=False):
            if id(param) not in found:
                # A weight that has two names is asked for once, and by all.
                full = ranks.whole(ranks.local(param), param)
                found[id(param)] = full.detach().cpu() if ranks.first() else None
            weights[name] = found[id(param)]
        model = copy.deepcopy(self.hollow, _memory(self.hollow))
        if ranks.first():
            model.load_state_dict(weights, strict=False, assign=True)
        return model


def _hollow(model: Any) -> Any:
    """A copy without weights, which shares all else that is large."""
    shared = _memory(model)
    for one in model.parameters():
        shared[id(one)] = nn.Parameter(torch.empty_like(one, device="meta"), requires_grad=False)
    return copy.deepcopy(model, shared)


def _memory(model: Any) -> dict[int, Any]:
    """What copies share."""
    shared: dict[int, Any] = {id(one): one for one in model.buffers()}
    return shared | {id(model.processor): model.processor}


def _whole_copy(model: Any) -> Any:
    """Frozen, and in the dtype of its products where those have one of their own."""
    reads_whole = model.compute is None or model.has_adapters()
    twin = model.frozen_copy() if reads_whole else _narrow_copy(model)
    for name, value in vars(twin).items():  # FSDP's hooks will be the policy's alone
        if "_hooks" in name:
            vars(twin)[name] = copy.copy(value)
    return twin


def _narrow_copy(model: Any) -> Any:
    twin, refresh = model.inference_copy(model.compute)
    refresh()
    trained = {id(one) for one in model.parameters() if one.requires_grad}
    for module in twin.modules():
        for name, one in vars(module)["_parameters"].items():
            if one is not None and id(one) in trained:  # shared by the inference copy
                vars(module)["_parameters"][name] = nn.Parameter(one.detach().clone())
    return twin.requires_grad_(False)


def _out_of_reach(model: Any, given: Any, hidden: Hidden) -> Hidden:
    """FSDP leaves a hook on every tensor that a forward returns; on the last layer's weights, which
    outlive the forward, they would pile up.
    """
    another: Any = _Another.apply
    bias = None if hidden.bias is None else another(hidden.bias)
    return hidden._replace(weight=another(hidden.weight), bias=bias)


class _Another(torch.autograd.Function):
    """The same memory as another tensor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.data

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]
