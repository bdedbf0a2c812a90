"""The program of docs/python.md runs as it is, against a real service."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
URL = "http://127.0.0.1:8000"


def test_all_blocks_of_the_page_run_in_order(bundled_service: str, tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 10
    program = "\n".join(blocks)
    assert URL in program
    (tmp_path / "page.py").write_text(program.replace(URL, bundled_service), encoding="utf-8")
    ran = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    for line in ("1 not-a-picture pictures[1]: the file is no picture", "stored, 0 existing, 0 failed", "422 A camera"):
        assert line in ran.stdout
    assert (tmp_path / "sheet.jpg").read_bytes().startswith(b"\xff\xd8")
