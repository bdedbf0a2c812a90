"""`python -m drawing`: draw crops of invented persons, seen by several cameras."""

import argparse
from pathlib import Path

from drawing.crops import write_crops


def main() -> None:
    """Draw crops into a folder. Exit code 2 and one sentence for numbers out of range."""
    parser = argparse.ArgumentParser(prog="python -m drawing", description="Draw crops of invented persons.")
    parser.add_argument("folder", type=Path, metavar="OUT", help="folder to write; it gets a folder for each camera")
    parser.add_argument("--people", type=int, default=40, help="how many persons (default: %(default)s)")
    parser.add_argument(
        "--cameras", type=int, default=4, help="how many cameras; at least two see each person (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices (default: %(default)s)")
    options = parser.parse_args()
    try:
        crops = write_crops(options.folder, options.people, options.cameras, seed=options.seed)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    print(f"{crops} crops of {options.people} persons, drawn into {options.folder}")


if __name__ == "__main__":
    main()
