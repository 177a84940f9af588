"""Several ranks on one run: parameters sharded by FSDP2, batches taken in turn, sums over all ranks.

Start it with `torchrun --nproc-per-node N`. A run of N ranks computes what one rank computes, up to rounding.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from riallm.core.errors import UsageError
from riallm.models.base import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among all of a run; one rank is the plain case."""

    rank: int = 0
    world: int = 1

    def total(self, value: float) -> float:
        """The sum of a number over all ranks, in float64."""
        if self.world == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(summed)
        return float(summed)

    def wait(self) -> None:
        """Until every rank has come here."""
        if self.world > 1:
            dist.barrier()


def join(device: str = "cpu") -> Ranks:
    """Join the run that `torchrun` started; alone where it did not."""
    if "RANK" not in os.environ:
        return Ranks()
    if not dist.is_initialized():
        dist.init_process_group("gloo" if device == "cpu" else "nccl")
    return Ranks(rank=dist.get_rank(), world=dist.get_world_size())


def leave() -> None:
    """Leave the run, if one was joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


def shard(model: Model, ranks: Ranks, device: str = "cpu") -> None:
    """Shard every block, then the rest, over all ranks, in place; nothing happens with one rank.

    Raises UsageError for a model without blocks in `layers`.
    """
    if ranks.world == 1:
        return
    layers = getattr(model, "layers", None)
    if layers is None:
        raise UsageError(f"{type(model).__name__} has no blocks in `layers`, so it cannot be sharded")
    mesh = init_device_mesh(device, (ranks.world,))
    for block in layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    for module in model.modules():
        for name in getattr(module, "also_forward", ()):
            register_fsdp_forward_method(module, name)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, tensor: Tensor) -> Tensor:
    """A whole value, laid out as `tensor` is and on its device."""
    if not isinstance(tensor, DTensor):
        return value.to(tensor.device)
    return distribute_tensor(value, tensor.device_mesh, tensor.placements)
