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
from model.training.processes import Processes
from model.training.progress import Progress, frozen_layers, trainable_trunk
from model.training.schedule import late_rate

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Step:
    """An iteration of as many batches as the recipe adds up; changes the progress that it is given."""

    def __init__(self, recipe: Recipe, processes: Processes, progress: Progress, compiled: bool = False) -> None:
        """compiled: whether torch.compile translates the network first, which takes a minute or two."""
        self._recipe = recipe
        self._processes = processes
        self._progress = progress
        self._normalise = Normalise(recipe.input).to(processes.device)
        self._scales = part_scales(recipe.part_weights).to(processes.device)
        self._compiled = compiled
        self._network: nn.Module | None = None
        self._network_is_of_maps = False
        if processes.device.type == "cpu" and recipe.precision == "bfloat16":
            strided_depthwise_in_float32(progress.mgn)

    @property
    def learning_rate(self) -> float:
        """That of the layers which started from random numbers."""
        return float(self._progress.optimizer.param_groups[-1]["lr"])

    def __call__(self, batches: list[Batch]) -> Tensor:
        """`(4,)`: the loss and its parts softmax, triplet and distillation, means over the batches."""
        progress, recipe = self._progress, self._recipe
        _to_training_mode(progress.mgn, recipe)
        _set_rates(progress, recipe)
        progress.optimizer.zero_grad()
        told = []
        for number, batch in enumerate(batches):
            network = self._network_for(batch)
            with _synchronising(network, number + 1 == len(batches)):
                losses = self._losses(network, batch)
                torch.autograd.backward(progress.scaler.scale(losses[0] / len(batches)))
            told.append(losses.detach())
        if recipe.optimizer.gradient_clip:
            progress.scaler.unscale_(progress.optimizer)
            nn.utils.clip_grad_norm_(progress.mgn.parameters(), recipe.optimizer.gradient_clip)
        progress.scaler.step(progress.optimizer)
        progress.scaler.update()
        if progress.average:
            progress.average.update_parameters(progress.mgn)
        return torch.stack(told).mean(dim=0)

    def _network_for(self, batch: Batch) -> nn.Module:
        """What learns from the batch: the whole network, or all of it behind the trunk, which then has no gradients."""
        if self._network is not None and self._network_is_of_maps == batch.of_maps:
            return self._network
        mgn, cuda = self._progress.mgn, self._processes.device.type == "cuda"
        for parameter in trainable_trunk(mgn, self._recipe).parameters():
            parameter.requires_grad_(not batch.of_maps)
        network: nn.Module = _BehindTrunk(mgn) if batch.of_maps else mgn
        if self._compiled:
            network.compile(mode="reduce-overhead" if cuda else "default")
        if self._processes.count > 1:
            network = DistributedDataParallel(network)
        self._network, self._network_is_of_maps = network, batch.of_maps
        return network

    def _losses(self, network: nn.Module, batch: Batch) -> Tensor:
        recipe, processes = self._recipe, self._processes
        if batch.of_maps:
            inputs = to_maps(batch, recipe.augmentation, processes.device)
        else:
            inputs = self._sized(to_images(batch, recipe.augmentation, self._normalise, processes.device))
        labels = batch.labels.to(processes.device, non_blocking=True)
        precision = _PRECISIONS[recipe.precision]
        with torch.autocast(processes.device.type, precision, enabled=precision != torch.float32):
            output: MGNOutput = network(inputs)
        softmax = _softmax(output, labels, recipe.loss)
        parts, all_labels = processes.gather(output.parts.float()), processes.gather(labels)
        penalty = hinge(recipe.loss.margin) if recipe.loss.triplet == "hinge" else soft_margin
        triplet = global_triplet_loss(parts, all_labels, penalty, recipe.loss.normalise_triplet)
        distillation = torch.zeros_like(triplet)
        if batch.teacher is not None and recipe.distillation:
            teacher = processes.gather(batch.teacher.to(processes.device, non_blocking=True))
            distillation = self._distillation(parts, teacher, recipe.distillation)
        return torch.stack([softmax + triplet + distillation, softmax, triplet, distillation])

    def _distillation(self, parts: Tensor, teacher: Tensor, how: Distillation) -> Tensor:
        embeddings = weighted_parts(parts, self._scales).flatten(1)
        loss = (1 - how.global_share) * similarity_distillation_loss(embeddings, teacher)
        if how.global_share:
            loss = loss + how.global_share * global_distillation_loss(parts, teacher)
        return how.weight * loss

    def _sized(self, images: Tensor) -> Tensor:
        small = self._recipe.small_start
        if small is None or self._progress.iteration >= small.share * self._recipe.schedule.iterations:
            return images
        return F.interpolate(images, (small.height, small.width), mode="bilinear", antialias=True)


class _BehindTrunk(nn.Module):
    """The branches, reductions and classifiers of an MGN, without its trunk."""

    def __init__(self, mgn: MGN) -> None:
        super().__init__()
        self.branches, self.pools = mgn.branches, mgn.pools
        self.reductions, self.classifiers = mgn.reductions, mgn.classifiers
        self._of_maps = mgn.of_maps

    def forward(self, maps: Tensor) -> MGNOutput:
        return self._of_maps(maps)


def _synchronising(network: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Gradients are exchanged once an iteration, with the last of its batches."""
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


def _set_rates(progress: Progress, recipe: Recipe) -> None:
    for group in progress.optimizer.param_groups:
        share = late_rate(progress.iteration, recipe.schedule, group["joins_at"])
        group["lr"] = group["peak"] * share if progress.iteration >= group["frozen_iterations"] else 0.0
