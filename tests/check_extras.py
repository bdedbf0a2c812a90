"""`make check-extras`: the extras of the service resolve, with an old pip and the newest, on each Python at hand.

Nothing is installed: `pip install --dry-run` downloads what it must and says what it would install.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EXTRAS = ("cpu", "gpu")
PIPS = ("pip==23.2.1", "pip")
"""What Python 3.11 brings along, and the newest."""
PYTHONS = ("python3.11", "python3.12", "python3.13")

PROJECT = Path(__file__).parents[1]


def main() -> None:
    """Print a line for each combination; exit with 1 where one fails or no Python is at hand."""
    found = [python for python in PYTHONS if is_at_hand(python)]
    for python in sorted(set(PYTHONS) - set(found)):
        print(f"{python}: not at hand, not tried")
    failed = [not resolves(python, pip, extra) for python in found for pip in PIPS for extra in EXTRAS]
    if not found or any(failed):
        sys.exit(1)


def is_at_hand(python: str) -> bool:
    """Whether it runs; a version manager may have a command for a version that it does not run."""
    return shutil.which(python) is not None and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


def resolves(python: str, pip: str, extra: str) -> bool:
    """Whether the extra resolves; prints the versions of what decides, or what pip says against it."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "venv", folder], check=True)
        subprocess.run([own, "-m", "pip", "install", "--quiet", "--upgrade", pip], check=True)
        version = subprocess.run([own, "-m", "pip", "--version"], check=True, capture_output=True, text=True).stdout
        dry_run = [own, "-m", "pip", "install", "--dry-run", f"{PROJECT}[{extra}]"]
        ran = subprocess.run(dry_run, check=False, capture_output=True, text=True)
    name = f"{python}, pip {version.split()[1]}, extra {extra}"
    if ran.returncode:
        print(f"{name}: FAILED\n{ran.stderr}")
        return False
    wanted = ran.stdout.rpartition("Would install ")[2].split()
    deciding = [name for name in wanted if name.startswith(("faiss", "onnxruntime", "torch", "cuda-toolkit"))]
    print(f"{name}: {len(wanted)} packages, among them {' '.join(deciding)}", flush=True)
    return True


if __name__ == "__main__":
    main()
