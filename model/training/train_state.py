"""The state of a training run: network, optimizer, loss scaler, moving average, iteration, random numbers."""

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
from model.training.states import MAX_STATES
from model.training.world import World


@dataclass
class TrainState:
    """The state of a run after `iteration` iterations."""

    mgn: MGN
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    iteration: int = 0

    def state_dict(self) -> dict[str, Any]:
        """The whole state, including torch's random number generator."""
        return {
            "iteration": self.iteration,
            "mgn": self.mgn.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "random": torch.get_rng_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.iteration = state["iteration"]
        self.mgn.load_state_dict(state["mgn"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        torch.set_rng_state(state["random"])


def states_bytes(recipe: Recipe, classes: int) -> int:
    """The bytes on the disk that a run takes, but for its log: three states and two checkpoints, for a moment.

    A state has `4 * P` bytes for the weights, as many for a moving average and for each moment of the optimizer.
    """
    with torch.device("meta"):
        network = MGN(build_backbone(recipe.architecture), recipe.architecture, classes)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    copies = 1 + (2 if recipe.optimizer.kind == "adamw" else 1) + (1 if recipe.average else 0)
    return 4 * parameters * ((MAX_STATES + 1) * copies + 2)


def initial_state(recipe: Recipe, classes: int, world: World, initial: Checkpoint | None = None) -> TrainState:
    """The state before the first iteration, on this process's device; classifiers always have random weights.

    initial: a checkpoint whose weights replace the recipe's initialisation. Raises TrainingError if the recipe's
    initial weights are not available, and CheckpointError if the checkpoint's architecture is not the recipe's.
    """
    mgn = _initial_network(recipe, classes, initial)
    if recipe.batch_norm == "synchronised":
        mgn = nn.SyncBatchNorm.convert_sync_batchnorm(mgn)  # type: ignore[no-untyped-call]
    mgn = mgn.to(world.device).to(memory_format=torch.channels_last)
    for parameter in frozen_layers(mgn, recipe).parameters():
        parameter.requires_grad_(False)
    scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "float16")
    average = None
    if recipe.average:
        update = get_ema_multi_avg_fn(recipe.average.decay)  # type: ignore[no-untyped-call]
        average = AveragedModel(mgn, multi_avg_fn=update, use_buffers=True)
    return TrainState(mgn, _optimizer(mgn, recipe), scaler, average)


def _initial_network(recipe: Recipe, classes: int, initial: Checkpoint | None) -> MGN:
    if initial is None:
        backbone = initial_backbone(recipe.architecture, recipe.initialisation)
        return MGN(backbone, recipe.architecture, classes)
    if initial.metadata.architecture != recipe.architecture:
        raise CheckpointError(
            f"{initial.metadata.model_id} has another architecture than the recipe: {initial.metadata.architecture}; "
            "change the recipe's [architecture]"
        )
    mgn = MGN(build_backbone(recipe.architecture), recipe.architecture, classes)
    trained = load_embedder(initial).mgn.state_dict()
    mgn.load_state_dict(trained | {name: value for name, value in mgn.state_dict().items() if name not in trained})
    return mgn


def frozen_layers(mgn: MGN, recipe: Recipe) -> nn.Module:
    """The blocks of the trunk that are never trained."""
    return mgn.trunk[: recipe.initialisation.frozen_trunk_blocks]


def trainable_trunk(mgn: MGN, recipe: Recipe) -> nn.Module:
    """The blocks of the trunk that are trained, at least in later iterations."""
    return mgn.trunk[recipe.initialisation.frozen_trunk_blocks :]


def _optimizer(mgn: MGN, recipe: Recipe) -> torch.optim.Optimizer:
    config = recipe.optimizer
    trunk = [parameter for parameter in mgn.trunk.parameters() if parameter.requires_grad]
    pretrained_heads = mgn.reductions[: recipe.architecture.own_heads]
    pretrained = [*mgn.branches.parameters(), *pretrained_heads.parameters()]
    classifiers = [*mgn.classifiers.parameters()] if config.classifier_learning_rate else []
    known = {id(parameter) for parameter in [*mgn.trunk.parameters(), *pretrained, *classifiers]}
    random_heads = [parameter for parameter in mgn.parameters() if id(parameter) not in known]
    initialisation = recipe.initialisation
    groups = [
        {
            "params": trunk,
            "peak": config.trunk_learning_rate or config.learning_rate,
            "frozen_iterations": initialisation.frozen_iterations,
            "joins_at": initialisation.frozen_trunk_iterations,
        },
        {
            "params": pretrained,
            "peak": config.learning_rate,
            "frozen_iterations": initialisation.frozen_iterations,
            "joins_at": 0,
        },
        {"params": random_heads, "peak": config.head_learning_rate, "frozen_iterations": 0, "joins_at": 0},
    ]
    if classifiers:
        groups.append(
            {"params": classifiers, "peak": config.classifier_learning_rate, "frozen_iterations": 0, "joins_at": 0}
        )
    if config.kind == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
    )
