"""One training process or several under torchrun, which share each batch."""

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
class Processes:
    """This process's place (`rank`, from 0) among `count`, and the device that it trains on."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    def share(self, size: int) -> slice:
        """This process's rows of a batch of `size`."""
        each = size // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, values: Tensor) -> Tensor:
        """`(n, ...)` of each process -> `(count * n, ...)` of all, with the gradient of a loss that all compute."""
        if self.count == 1:
            return values
        gathered: Tensor = _Gather.apply(values, self.rank, self.count)
        return gathered

    def mean(self, values: Tensor) -> Tensor:
        """The mean of the processes' values."""
        if self.count > 1:
            dist.all_reduce(values)
            values = values / self.count
        return values

    def any(self, here: bool) -> bool:
        """Whether it is true in any process."""
        if self.count == 1:
            return here
        flag = torch.tensor(int(here), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """The processes that torchrun started, or this one alone. Raises TrainingError if there are too few GPUs."""
    gpus = torch.cuda.device_count()
    if not dist.is_torchelastic_launched():
        yield Processes(0, 1, torch.device("cuda" if gpus else "cpu"))
        return
    here = int(os.environ["LOCAL_RANK"])
    if gpus and here >= gpus:
        raise TrainingError(f"torchrun started more processes than there are GPUs ({gpus}): lower --nproc-per-node")
    device = torch.device("cuda", here) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpus else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """Every process computes the same loss of the gathered rows, so a row's gradient is the sum over the processes.

    DistributedDataParallel then takes the mean over the processes, which leaves the gradient of that one loss.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, rank: int, count: int) -> Tensor:
        ctx.rows = slice(rank * len(values), (rank + 1) * len(values))
        parts = [torch.empty_like(values) for _ in range(count)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.rows], None, None
