"""The processes of a training run: one, or several under torchrun that split each batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.errors import TrainingError


@dataclass(frozen=True)
class World:
    """A process's `rank` (from 0), the number of processes `size`, and the device that the process trains on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main_process(self) -> bool:
        """Whether this process has rank 0: only the main process writes files and prints."""
        return self.rank == 0

    def rows(self, batch_size: int) -> slice:
        """This process's rows of a batch; `size` must divide `batch_size`."""
        rows = batch_size // self.size
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def gather(self, values: Tensor) -> Tensor:
        """`(n, ...)` of each process -> `(size * n, ...)` of all; differentiable, see `_Gather`."""
        if self.size == 1:
            return values
        gathered: Tensor = _Gather.apply(values, self.rank, self.size)
        return gathered

    def mean(self, values: Tensor) -> Tensor:
        """The mean of the processes' values."""
        if self.size > 1:
            dist.all_reduce(values)
            values = values / self.size
        return values

    def any(self, value: bool) -> bool:
        """Whether `value` is true in any process."""
        if self.size == 1:
            return value
        flag = torch.tensor(int(value), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def barrier(self) -> None:
        """Wait until all processes have called this method."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes of torchrun, or be the only process. Raises TrainingError if there are too few GPUs."""
    gpus = torch.cuda.device_count()
    if not dist.is_torchelastic_launched():
        yield World(0, 1, torch.device("cuda" if gpus else "cpu"))
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if gpus and local_rank >= gpus:
        raise TrainingError(f"torchrun started more processes than there are GPUs ({gpus}): lower --nproc-per-node")
    device = torch.device("cuda", local_rank) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpus else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """all_gather with a gradient.

    Every process computes the same loss of all rows, so a row's gradient is the sum over the processes.
    DistributedDataParallel then averages over the processes, which gives the gradient of the loss.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, rank: int, size: int) -> Tensor:
        ctx.rows = slice(rank * len(values), (rank + 1) * len(values))
        parts = [torch.empty_like(values) for _ in range(size)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.rows], None, None
