"""The index against exact search and other indexes: `python -m bench.index --crops 1000000 --folder DIR`.

It measures the figures about searches in docs/performance.md, on real and synthetic embeddings (`galleries.py`), which
the first run writes to the folder: 4 KiB a crop.
"""

import argparse
from pathlib import Path

from rich.console import Console

from bench.index.comparisons import CROPS, FOLDER, PARTS, growth, rows_of
from bench.index.growth import SIZES, draw_growth
from bench.rows import show


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=CROPS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="20 GB for a million crops and all other indexes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, help="only this part")
    parser.add_argument(
        "--plot", type=Path, help="measure galleries from 10,000 crops on, and write a plot to this file"
    )
    arguments = parser.parse_args()
    if arguments.plot:
        from bench.index.galleries import gallery_of

        galleries = (gallery_of(arguments.folder, size) for size in SIZES if size <= arguments.crops)
        draw_growth(growth(galleries, arguments.rounds), arguments.plot)
        return
    show(rows_of(arguments.folder, arguments.crops, arguments.rounds, arguments.only), Console())


if __name__ == "__main__":
    main()
