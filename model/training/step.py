"""One iteration of training: forward, losses, backward and update."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from model.losses import (
    circle_loss,
    global_distillation_loss,
    global_triplet_loss,
    hinge,
    similarity_distillation_loss,
    soft_margin,
    softmax_loss,
)
from model.mgn import MGN, MGNOutput, Normalise, part_scales, weighted_parts
from model.recipe import Distillation, Loss, Recipe
from model.training.batches import Batch, to_images, to_maps
from model.training.machine import strided_depthwise_in_float32
from model.training.schedule import delayed_rate
from model.training.train_state import TrainState, frozen_layers, trainable_trunk
from model.training.world import World

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Step:
    """One iteration: `accumulation` batches of the recipe and one optimizer update. Updates the given state."""

    def __init__(self, recipe: Recipe, world: World, state: TrainState, compiled: bool = False) -> None:
        """compiled: whether to compile the network with torch.compile, which takes a minute or two."""
        self._recipe = recipe
        self._world = world
        self._state = state
        self._normalise = Normalise(recipe.input).to(world.device)
        self._scales = part_scales(recipe.part_weights).to(world.device)
        self._compiled = compiled
        self._network: nn.Module | None = None
        self._network_takes_maps = False
        if world.device.type == "cpu" and recipe.precision == "bfloat16":
            strided_depthwise_in_float32(state.mgn)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the randomly initialised layers."""
        return float(self._state.optimizer.param_groups[-1]["lr"])

    def __call__(self, batches: list[Batch]) -> Tensor:
        """Train on the batches of one iteration; returns `(4,)`: total, softmax, triplet and distillation loss.

        Each loss is a mean over the batches.
        """
        state, recipe = self._state, self._recipe
        _to_training_mode(state.mgn, recipe)
        _set_rates(state, recipe)
        state.optimizer.zero_grad()
        batch_losses = []
        for number, batch in enumerate(batches):
            network = self._network_for(batch)
            with _gradient_sync(network, number + 1 == len(batches)):
                losses = self._losses(network, batch)
                torch.autograd.backward(state.scaler.scale(losses[0] / len(batches)))
            batch_losses.append(losses.detach())
        if recipe.optimizer.gradient_clip:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.mgn.parameters(), recipe.optimizer.gradient_clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average:
            state.average.update_parameters(state.mgn)
        return torch.stack(batch_losses).mean(dim=0)

    def _network_for(self, batch: Batch) -> nn.Module:
        """The whole network for pictures; the network without its trunk, which then gets no gradients, for maps."""
        if self._network is not None and self._network_takes_maps == batch.is_maps:
            return self._network
        mgn, cuda = self._state.mgn, self._world.device.type == "cuda"
        for parameter in trainable_trunk(mgn, self._recipe).parameters():
            parameter.requires_grad_(not batch.is_maps)
        network: nn.Module = _WithoutTrunk(mgn) if batch.is_maps else mgn
        if self._compiled:
            network.compile(mode="reduce-overhead" if cuda else "default")
        if self._world.size > 1:
            network = DistributedDataParallel(network)
        self._network, self._network_takes_maps = network, batch.is_maps
        return network

    def _losses(self, network: nn.Module, batch: Batch) -> Tensor:
        recipe, world = self._recipe, self._world
        if batch.is_maps:
            inputs = to_maps(batch, recipe.augmentation, world.device)
        else:
            inputs = self._resized(to_images(batch, recipe.augmentation, self._normalise, world.device))
        labels = batch.labels.to(world.device, non_blocking=True)
        precision = _PRECISIONS[recipe.precision]
        with torch.autocast(world.device.type, precision, enabled=precision != torch.float32):
            output: MGNOutput = network(inputs)
        softmax = _softmax(output, labels, recipe.loss)
        parts, all_labels = world.gather(output.parts.float()), world.gather(labels)
        penalty = hinge(recipe.loss.margin) if recipe.loss.triplet == "hinge" else soft_margin
        triplet = global_triplet_loss(parts, all_labels, penalty, recipe.loss.normalise_triplet)
        distillation = torch.zeros_like(triplet)
        if batch.teacher is not None and recipe.distillation:
            teacher = world.gather(batch.teacher.to(world.device, non_blocking=True))
            distillation = self._distillation(parts, teacher, recipe.distillation)
        return torch.stack([softmax + triplet + distillation, softmax, triplet, distillation])

    def _distillation(self, parts: Tensor, teacher: Tensor, config: Distillation) -> Tensor:
        embeddings = weighted_parts(parts, self._scales).flatten(1)
        loss = (1 - config.global_share) * similarity_distillation_loss(embeddings, teacher)
        if config.global_share:
            loss = loss + config.global_share * global_distillation_loss(parts, teacher)
        return config.weight * loss

    def _resized(self, images: Tensor) -> Tensor:
        """The images, shrunk in the first iterations if the recipe has a section `small_start`."""
        small = self._recipe.small_start
        if small is None or self._state.iteration >= small.share * self._recipe.schedule.iterations:
            return images
        return F.interpolate(images, (small.height, small.width), mode="bilinear", antialias=True)


class _WithoutTrunk(nn.Module):
    """The branches, reductions and classifiers of an MGN, without its trunk."""

    def __init__(self, mgn: MGN) -> None:
        super().__init__()
        self.branches, self.pools = mgn.branches, mgn.pools
        self.reductions, self.classifiers = mgn.reductions, mgn.classifiers
        self._forward_from_maps = mgn.forward_from_maps

    def forward(self, maps: Tensor) -> MGNOutput:
        return self._forward_from_maps(maps)


def _gradient_sync(network: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Exchange gradients between processes in an iteration's last batch only."""
    if isinstance(network, DistributedDataParallel) and not last:
        return network.no_sync()
    return nullcontext()


def _softmax(output: MGNOutput, labels: Tensor, loss: Loss) -> Tensor:
    logits = [part.float() for part in output.logits]
    if loss.softmax == "circle":
        return circle_loss(logits, labels, loss.circle_scale, loss.circle_margin)
    return softmax_loss(logits, labels, loss.label_smoothing)


def _to_training_mode(mgn: MGN, recipe: Recipe) -> None:
    mgn.train()
    frozen_layers(mgn, recipe).eval()
    if recipe.batch_norm == "frozen":
        for module in mgn.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _set_rates(state: TrainState, recipe: Recipe) -> None:
    for group in state.optimizer.param_groups:
        factor = delayed_rate(state.iteration, recipe.schedule, group["joins_at"])
        group["lr"] = group["peak"] * factor if state.iteration >= group["frozen_iterations"] else 0.0
