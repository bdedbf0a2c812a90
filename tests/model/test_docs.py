"""All commands of docs/training.md work in order."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(
    not shutil.which("bash") or not shutil.which("curl"), reason="the page's commands are for bash and curl"
)
def test_all_commands_of_the_page_work_in_order(tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 5
    script = "set -euo pipefail\n" + "\n".join(blocks)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "2",
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for made in ("report.html", "checkpoint.safetensors", "log.jsonl", "seen", "calibrated.reliability.svg"):
        assert (tmp_path / "runs" / "first" / made).exists(), made
    assert "stopped after iteration" in done.stdout + done.stderr
    first, second = (load_checkpoint(tmp_path / "runs" / run / "checkpoint.safetensors") for run in ("first", "second"))
    assert first.metadata.sha256 == second.metadata.sha256, "the run that was stopped ends with the same weights"
