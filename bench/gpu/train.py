"""`python -m bench.gpu train`: the best training for some minutes of one GPU, with evaluations on the way.

Two networks, half of the minutes each: `mgn-osnet` with all layers, from the layers of a converted network; and MGN on
ResNet-50 from random weights, with a teacher. A stopped run continues if it is started again.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.checkpoint import Checkpoint, save_checkpoint
from model.commands.places import evaluate_place
from model.commands.running import training_data
from model.commands.splits import choose_split
from model.datasets import open_data_sets
from model.datasets.joined import hold_out_of_first
from model.errors import ModelError
from model.evaluate import embed_split
from model.initialisation import converted_network
from model.loading import inference_of, with_reference
from model.recipe import Recipe, parse_overrides, read_recipe, recipe_path
from model.report import read_log
from model.train import Run, train
from model.training.inputs import default_cache
from model.training.run_log import LOG_FILE
from model.training.states import saved_states
from model.training.world import World

NETWORKS = ("osnet", "resnet50")
VALIDATION_SECONDS = 120
TRAINING_SHARE = 0.8
"""The share of a run's minutes for iterations; the rest is for evaluation and for decoding pictures."""
_SPEED_ITERATIONS = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--data", required=True, action="append", help="KIND:FOLDER to train on; may be repeated")
    parser.add_argument("--unseen", default=[], action="append", help="KIND:FOLDER to evaluate on as well")
    parser.add_argument("--hold-out", type=int, default=100, help="identities of the first --data to evaluate on")
    parser.add_argument("--weights", type=Path, help="the converted network that osnet starts from")
    parser.add_argument("--teacher", type=Path, action="append", default=[], help="NPZ of features, for resnet50")
    parser.add_argument("--teacher-name", help="what the teacher is, and its licence")
    parser.add_argument("--minutes", type=float, default=20, help="of all networks together")
    parser.add_argument("--iterations", type=int, help="of each network, in place of --minutes")
    parser.add_argument("--network", choices=NETWORKS, action="append", help="only this one; may be repeated")
    parser.add_argument("--cache", type=Path, help="folder for decoded pictures")
    parser.add_argument("--set", default=[], action="append", dest="settings", help="as `python -m model train --set`")
    parser.add_argument("--out", required=True, type=Path, help="folder of the runs")


def run(arguments: argparse.Namespace, device: torch.device, parser: argparse.ArgumentParser) -> None:
    """Train each network; exit with 2 for missing arguments."""
    networks = arguments.network or NETWORKS
    if "osnet" in networks and not arguments.weights:
        parser.exit(2, "error: osnet needs --weights: a network that `python -m model convert` wrote\n")
    if "resnet50" in networks and not (arguments.teacher and arguments.teacher_name):
        parser.exit(2, "error: resnet50 from random weights needs --teacher and --teacher-name\n")
    try:
        for network in networks:
            _train(network, arguments, 60 * arguments.minutes / len(networks), World(0, 1, device))
    except ModelError as error:
        parser.exit(2, f"error: {error}\n")


def _train(network: str, arguments: argparse.Namespace, seconds: float, world: World) -> None:
    folder = arguments.out / network
    planned = _run(network, arguments, folder)
    if arguments.iterations is None:
        iterations, validate_every = _planned_iterations(planned, world, seconds)
    else:
        iterations, validate_every = arguments.iterations, arguments.iterations
    planned = replace(planned, recipe=_with_iterations(planned.recipe, iterations))
    planned = replace(planned, validate_every=validate_every, save_every=validate_every)
    validate = _Validation(folder, [arguments.data[0], *arguments.unseen])
    train(planned, world, resume=bool(saved_states(folder)), validate=validate)


def _run(network: str, arguments: argparse.Namespace, folder: Path) -> Run:
    """The run, without its final number of iterations."""
    overrides = dict(_OVERRIDES[network])
    if network == "osnet":
        overrides["initialisation.weights"] = f"file:{arguments.weights}"
        overrides["batch.sources"] = _sources(arguments.data)
    recipe = read_recipe(recipe_path(Path(_RECIPES[network])), overrides | parse_overrides(arguments.settings))
    data_set = open_data_sets(arguments.data)
    samples, _ = hold_out_of_first(data_set, arguments.hold_out)
    origin = converted_network(recipe)
    teacher = origin.model_id if origin else arguments.teacher_name
    data = training_data(samples, data_set, arguments.hold_out, origin, teacher)
    teachers = () if network == "osnet" else tuple(arguments.teacher)
    return Run(recipe, samples, data, folder, teachers, cache=arguments.cache or default_cache())


def _sources(data: Sequence[str]) -> list[int]:
    """The recipe's, if it has one a data set; otherwise none, so batches follow the data sets' sizes."""
    sources = read_recipe(recipe_path(Path(_RECIPES["osnet"]))).batch.sources
    return list(sources) if len(sources) == len(data) else []


_RECIPES = {"osnet": "osnet", "resnet50": "practical"}
_OVERRIDES: dict[str, dict[str, object]] = {
    "osnet": {"initialisation.frozen_trunk_iterations": 0},
    "resnet50": {
        "initialisation.weights": "random",
        "initialisation.frozen_iterations": 0,
        "distillation": {"weight": 20, "teacher": "file"},
    },
}


def _with_iterations(recipe: Recipe, iterations: int) -> Recipe:
    schedule = recipe.schedule.model_copy(
        update={"iterations": iterations, "warm_up": min(recipe.schedule.warm_up, iterations // 10)}
    )
    return recipe.model_copy(update={"schedule": schedule})


def _planned_iterations(planned: Run, world: World, seconds: float) -> tuple[int, int]:
    """The iterations that fit into `seconds` at the speed of a short run, and those from validation to validation.

    Stored in the run's folder, so that a resumed run keeps its length.
    """
    stored = planned.folder / "iterations.txt"
    if not stored.exists():
        speed = _iterations_a_second(planned, world)
        planned.folder.mkdir(parents=True, exist_ok=True)
        validate_every = max(1, int(VALIDATION_SECONDS * speed))
        validations = max(1, round(TRAINING_SHARE * seconds / VALIDATION_SECONDS))
        stored.write_text(f"{validations * validate_every} {validate_every}", encoding="utf-8")
    iterations, validate_every = map(int, stored.read_text(encoding="utf-8").split())
    return iterations, validate_every


def _iterations_a_second(planned: Run, world: World) -> float:
    with tempfile.TemporaryDirectory() as folder:
        recipe = _with_iterations(planned.recipe, _SPEED_ITERATIONS)
        train(replace(planned, recipe=recipe, folder=Path(folder), log_every=10), world)
        speeds = [line["crops_per_second"] for line in read_log(Path(folder) / LOG_FILE) if "crops_per_second" in line]
    return float(speeds[-1]) / (planned.recipe.batch.identities * planned.recipe.batch.crops)


@dataclass
class _Validation:
    """Saves each validated checkpoint, named after its training state, and evaluates it on all places."""

    folder: Path
    places: list[str]

    def __call__(self, checkpoint: Checkpoint) -> Mapping[str, float]:
        began = time.perf_counter()
        described = with_reference(checkpoint)
        state = saved_states(self.folder)[-1]  # of this iteration, as save_every equals validate_every
        path = self.folder / f"{state.stem.replace('state', 'checkpoint')}.safetensors"
        save_checkpoint(path, described.weights, described.metadata)
        results: dict[str, float] = {}
        network = inference_of(checkpoint)
        for place in self.places:
            chosen = choose_split(place, checkpoint.metadata.training_data, None)
            metrics = evaluate_place(chosen, embed_split(chosen.split, network)).evaluation.metrics
            results |= {f"{chosen.data} rank-1": metrics.rank1, f"{chosen.data} mAP": metrics.map_step}
        text = ", ".join(f"{name} {100 * value:.1f} %" for name, value in results.items())
        print(f"{path.name}: {text}; evaluated in {time.perf_counter() - began:.0f} s", flush=True)
        return results
