"""`python -m bench.adapt`: the table by number of persons."""

import re
import sys
from pathlib import Path

import pytest

from bench import adapt
from tests.model.sites import TINY, first_checkpoint, site
from tests.model.training_factories import market

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("exported_once")
def test_the_bench_adapts_with_some_persons_and_evaluates_on_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first_checkpoint(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = ["adapt", "--checkpoint", tmp_path / "first.safetensors", "--data", f"synthetic:{site()}"]
    command += ["--other", f"market1501:{market(tmp_path)}", "--out", tmp_path / "runs", "--identities", 8, "--seed", 3]
    for setting in TINY:
        command += ["--set", setting]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    adapt.main()
    output = capsys.readouterr().out
    head, _, before, after, *below = output.splitlines()
    assert "synthetic, 4 identities held out of the training part" in head
    assert re.fullmatch(r"\| nobody yet \| - \| - \| [\d.]+ / [\d.]+ \| [\d.]+ / [\d.]+ \|", before)
    assert re.fullmatch(r"\| 8 persons \| \d+ \| [\d.]+ \| [\d.]+ / [\d.]+ \(in-domain\) \| [\d.]+ / [\d.]+ \|", after)
    assert "3 of the training" in below[-1]
    adapt.main()
    assert capsys.readouterr().out == output, "finished runs are not repeated"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--set", "loss.margin=0.1"])
    with pytest.raises(SystemExit) as ended:
        adapt.main()
    assert ended.value.code == 2
    assert "choose another --out" in capsys.readouterr().err
