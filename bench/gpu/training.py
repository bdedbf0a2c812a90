"""Crops a second of training, against a plain loop."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.gpu.findings import Finding, Scale
from bench.training import Loop, passerby_loop, plain_loop
from model.recipe import Recipe, read_recipe, recipe_path

RECIPES = ("practical", "paper", "osnet")


def findings(device: torch.device, scale: Scale) -> Iterator[Finding]:
    """A line for each recipe, with all layers trained from random weights, and one with the compiled network."""
    with tempfile.TemporaryDirectory() as folder:
        for name in RECIPES:
            loop = Loop(_recipe(name, scale), Path(folder), device, scale.warm_up)
            plain = plain_loop(loop)
            what = f"{loop.recipe.name}, all layers, {loop.recipe.precision}, {scale.identities} x {scale.crops_each}"
            for compiled in (False, True)[: 1 + scale.compiled]:
                ours = passerby_loop(loop, compiled)
                reference = f"{plain:,.0f}, a plain loop in float32; {ours / plain:.2f} times as many"
                name = f"{what}{', compiled' if compiled else ''}, crops/s"
                yield Finding("training", name, f"{ours:,.0f}", reference)


def _recipe(name: str, scale: Scale) -> Recipe:
    changes: dict[str, object] = {
        "schedule.iterations": scale.iterations,
        "initialisation.weights": "random",
        "batch.identities": scale.identities,
        "batch.crops": scale.crops_each,
        "batch.sources": [],
    }
    changes |= {"schedule.steps": [scale.iterations]} if name == "paper" else {"schedule.warm_up": 1}
    if name == "osnet":
        changes |= {"initialisation.frozen_trunk_iterations": 0, "distillation": None}
    if name == "practical":
        changes |= {"initialisation.frozen_iterations": 0}
    if scale.small_inputs and name != "osnet":
        changes |= {"input.height": 96, "input.width": 32}
    return read_recipe(recipe_path(Path(name)), changes)
