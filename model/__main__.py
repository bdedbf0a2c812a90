"""The command line `python -m model`; its commands are in model/commands."""

import re
import sys
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

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

_OUT_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate|bad_alloc|failed to allocate", re.IGNORECASE
)
"""What torch, ONNX Runtime and FAISS say, each in an error of another class."""


_NO_HOME = "determine home directory"
"""What `Path.expanduser` says."""


def main() -> None:
    """Run a command. Exit code 2 and one sentence for a user error; 128 + signal for a stopped run."""
    print_undecodable_names()
    try:
        commands(standalone_mode=True)
    except RunStopped as stop:
        _end(Text(_one_line(str(stop))), 128 + stop.signal_number)
    except ModelError as error:
        _fail(str(error))
    except MemoryError:
        _fail("the memory does not suffice: use fewer crops, or a machine with more memory")
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}")
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "model":
            raise
        _fail(f"this command needs the package {error.name}, which is not installed: pip install 'passerby[cpu,train]'")
    except RuntimeError as error:
        if _NO_HOME in str(error):
            _fail(f"a path begins with ~, but {error}")
        if not _OUT_OF_MEMORY.search(str(error)):
            raise
        _fail(f"the memory does not suffice: use smaller batches or inputs, or a larger machine ({error})")


def _fail(message: str) -> NoReturn:
    _end(Text.assemble(("error:", "red"), " ", _one_line(message)), 2)


def _end(message: Text, code: int) -> NoReturn:
    Console(stderr=True).print(message, soft_wrap=True, highlight=False)
    sys.exit(code)


def _one_line(message: str) -> str:
    return re.sub(r"\s*\n\s*", " ", message.strip())


if __name__ == "__main__":
    main()
