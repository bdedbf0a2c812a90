"""What changes while a run goes on: network, optimizer, moving average, iteration; saved and loaded as one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.backbones import build_backbone
from model.checkpoint import Checkpoint
from model.errors import CheckpointError
from model.initialisation import initial_backbone
from model.mgn import MGN, load_embedder
from model.recipe import Recipe
from model.training.processes import Processes


@dataclass
class Progress:
    """The state of a run after so many iterations."""

    mgn: MGN
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    iteration: int = 0

    def state(self) -> dict[str, Any]:
        """Everything, for `load` to go on from."""
        return {
            "iteration": self.iteration,
            "mgn": self.mgn.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "random": torch.get_rng_state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Be as when `state` was taken."""
        self.iteration = state["iteration"]
        self.mgn.load_state_dict(state["mgn"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        torch.set_rng_state(state["random"])


def start(recipe: Recipe, classes: int, processes: Processes, first: Checkpoint | None = None) -> Progress:
    """The state before the first iteration, on the processes' device; classifiers are always new.

    first: a checkpoint to go on from, in place of the recipe's first weights. Raises TrainingError where these are not
    to be had, and CheckpointError where the checkpoint is another network than the recipe's.
    """
    mgn = _first_network(recipe, classes, first)
    if recipe.batch_norm == "synchronised":
        mgn = nn.SyncBatchNorm.convert_sync_batchnorm(mgn)  # type: ignore[no-untyped-call]
    mgn = mgn.to(processes.device).to(memory_format=torch.channels_last)
    for parameter in frozen_layers(mgn, recipe).parameters():
        parameter.requires_grad_(False)
    scaler = torch.amp.GradScaler(processes.device.type, enabled=recipe.precision == "float16")
    average = None
    if recipe.average:
        move = get_ema_multi_avg_fn(recipe.average.decay)  # type: ignore[no-untyped-call]
        average = AveragedModel(mgn, multi_avg_fn=move, use_buffers=True)
    return Progress(mgn, _optimizer(mgn, recipe), scaler, average)


def _first_network(recipe: Recipe, classes: int, first: Checkpoint | None) -> MGN:
    if first is None:
        backbone = initial_backbone(recipe.architecture, recipe.initialisation)
        return MGN(backbone, recipe.architecture, classes)
    if first.metadata.architecture != recipe.architecture:
        raise CheckpointError(
            f"{first.metadata.model_id} is another network than the recipe's: {first.metadata.architecture}; "
            "change the recipe's [architecture]"
        )
    mgn = MGN(build_backbone(recipe.architecture), recipe.architecture, classes)
    trained = load_embedder(first).mgn.state_dict()
    mgn.load_state_dict(trained | {name: value for name, value in mgn.state_dict().items() if name not in trained})
    return mgn


def frozen_layers(mgn: MGN, recipe: Recipe) -> nn.Module:
    """The layers that keep their first weights throughout."""
    return mgn.trunk[: recipe.initialisation.frozen_trunk_blocks]


def trainable_trunk(mgn: MGN, recipe: Recipe) -> nn.Module:
    """The layers of the trunk that change, if only after a while."""
    return mgn.trunk[recipe.initialisation.frozen_trunk_blocks :]


def _optimizer(mgn: MGN, recipe: Recipe) -> torch.optim.Optimizer:
    how = recipe.optimizer
    trunk = [p for p in mgn.trunk.parameters() if p.requires_grad]
    pretrained = [*mgn.branches.parameters()]
    for head in mgn.reductions[: recipe.architecture.own_heads]:
        pretrained += head.parameters()
    classifiers = [*mgn.classifiers.parameters()] if how.classifier_learning_rate else []
    known = {id(parameter) for parameter in [*mgn.trunk.parameters(), *pretrained, *classifiers]}
    fresh = [parameter for parameter in mgn.parameters() if id(parameter) not in known]
    first = recipe.initialisation
    groups = [
        {
            "params": trunk,
            "peak": how.trunk_learning_rate or how.learning_rate,
            "frozen_iterations": first.frozen_iterations,
            "joins_at": first.frozen_trunk_iterations,
        },
        {
            "params": pretrained,
            "peak": how.learning_rate,
            "frozen_iterations": first.frozen_iterations,
            "joins_at": 0,
        },
        {"params": fresh, "peak": how.head_learning_rate, "frozen_iterations": 0, "joins_at": 0},
    ]
    if classifiers:
        groups.append(
            {"params": classifiers, "peak": how.classifier_learning_rate, "frozen_iterations": 0, "joins_at": 0}
        )
    if how.kind == "adamw":
        return torch.optim.AdamW(groups, lr=how.learning_rate, weight_decay=how.weight_decay, fused=True)
    return torch.optim.SGD(
        groups, lr=how.learning_rate, momentum=how.momentum, weight_decay=how.weight_decay, fused=True
    )
