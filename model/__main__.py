"""The command line `python -m model`; its commands are in model/commands."""

import sys

import typer
from rich.console import Console

from model.commands.adapt import adapt
from model.commands.calibrate import calibrate
from model.commands.convert import convert
from model.commands.evaluate import evaluate
from model.commands.export import export
from model.commands.info import info
from model.commands.recipes import recipes
from model.commands.report import report
from model.commands.teach import teach
from model.commands.train import train
from model.commands.visualize import visualize
from model.errors import ModelError, RunStopped
from model.files import print_undecodable_names

commands = typer.Typer(name="python -m model", help="Train, evaluate, convert and export MGN.", no_args_is_help=True)
for command in (train, recipes, adapt, evaluate, calibrate, visualize, report, convert, teach, export, info):
    commands.command()(command)


def main() -> None:
    """Run a command. Exit code 2 and one sentence for a user error; 128 + signal for a stopped run."""
    print_undecodable_names()
    try:
        commands(standalone_mode=True)
    except RunStopped as stop:
        Console(stderr=True).print(str(stop), soft_wrap=True, highlight=False)
        sys.exit(128 + stop.signal_number)
    except ModelError as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
