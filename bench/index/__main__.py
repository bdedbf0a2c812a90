"""The index beside exact search and beside other indexes: `python -m bench.index --crops 1000000 --folder DIR`.

It measures what docs/performance.md tells of searching, on real and drawn embeddings (`galleries.py`), which it makes
at the first run and keeps in the folder, 4 KiB a crop.
"""

import argparse
from pathlib import Path

from rich.console import Console

from bench.index.comparisons import CROPS, FOLDER, PARTS, growth, rows_of
from bench.index.growth import SIZES, draw_growth
from bench.rows import show


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=CROPS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="20 GB for a million crops and all peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--plot", type=Path, help="measure how all grows from 10,000 crops on, and draw it there")
    arguments = parser.parse_args()
    if arguments.plot:
        from bench.index.galleries import gallery_of

        galleries = (gallery_of(arguments.folder, size) for size in SIZES if size <= arguments.crops)
        draw_growth(growth(galleries, arguments.rounds), arguments.plot)
        return
    show(rows_of(arguments.folder, arguments.crops, arguments.rounds, arguments.only), Console())


if __name__ == "__main__":
    main()
