"""`.ci/gpu` as it is rehearsed on a CPU: parts that work, fail and hang, the table, and the hours of a guide."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".ci/gpu"


def load_script() -> ModuleType:
    """Return the script as a module."""
    loader = SourceFileLoader("gpu_script", str(SCRIPT))
    spec = importlib.util.spec_from_loader("gpu_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def rehearse(out: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    """Rehearse parts of it, one thread each, as other tests run beside."""
    command = [sys.executable, str(SCRIPT), "--rehearse", "--out", str(out), *parts]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3600, check=False)


@pytest.mark.slow
def test_one_part_is_rehearsed(tmp_path: Path) -> None:
    """The recipes are compared in tiny; the table and the JSON say the same."""
    done = rehearse(tmp_path, "recipes")

    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stdout + (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert list(results["parts"]) == ["recipes"]
    assert results["parts"]["recipes"]["end"] == "done"
    figures = {figure["name"]: figure for figure in results["parts"]["recipes"]["figures"]}
    assert {"Muon in place of AdamW", "equivariance 0.5 in place of 0, of the autoencoder"} <= figures.keys()
    assert all(name in done.stdout for name in figures)


@pytest.mark.slow
def test_all_of_it_is_rehearsed(tmp_path: Path) -> None:
    """Every part runs to its end, and what comes back is few files, beside one another."""
    pytest.importorskip("diffusers")

    done = rehearse(tmp_path)

    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stdout + (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert list(results["parts"]) == ["runs", "speed", "picture", "recipes", "ranks"]
    assert {part["end"] for part in results["parts"].values()} == {"done"}
    files = list(tmp_path.iterdir())
    assert len(files) <= 8
    assert all(path.is_file() and path.stat().st_size < 16 * 2**20 for path in files)


def test_parts_that_fail_or_hang_leave_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that hangs is ended with what it started; what it had found stands, and so does the table."""
    script, parts, out = load_script(), tmp_path / "parts", tmp_path / "out"
    parts.mkdir()
    found = '{"name": "a figure", "value": "7", "bar": "at most 8", "is_met": true, "numbers": {}}'
    write = f"import sys; open(sys.argv[sys.argv.index('--figures') + 1], 'w').write('{found}\\n')\n"
    child = f"subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
    note = f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))"
    (parts / "runs.py").write_text(f"{write}import subprocess\nchild = {child}\n{note}\nchild.wait()\n")
    (parts / "speed.py").write_text("raise SystemExit(3)\n")
    (parts / "picture.py").write_text(write)
    monkeypatch.setattr(script, "PARTS", parts)
    monkeypatch.setattr(script, "REHEARSAL", 5.0)
    monkeypatch.setattr(script, "GRACE", 0.0)
    monkeypatch.setattr(sys, "argv", ["gpu", "--rehearse", "--out", str(out), "runs", "speed", "picture"])

    code = script.main()

    ends = {name: part["end"] for name, part in json.loads((out / "results.json").read_text("utf-8"))["parts"].items()}
    assert ends == {"runs": "stopped after 5 s", "speed": "failed with 3, see log.txt", "picture": "done"}
    assert "a figure: 7 [at most 8: met]" in script.table(json.loads((out / "results.json").read_text("utf-8")))
    assert code == 1
    time.sleep(0.2)
    stat = Path("/proc", (tmp_path / "child").read_text(), "stat")  # of an ended one Z, where nobody asks for its code
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_parts_that_no_longer_fit_are_left_out() -> None:
    """The least important go first, as soon as half of the limits is more than the time."""
    script = load_script()
    names = list(script.LIMITS)

    assert script.fitting(names, sum(script.LIMITS.values()) / 2) == names
    assert script.fitting(names, 130.0) == ["runs", "speed"]
    assert script.fitting(names, 10.0) == []


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    """A machine without CUDA gets one line and a code that is not 0."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)

    assert done.returncode == 1
    assert "there is no CUDA device here" in done.stderr


def test_the_guide_has_the_hours_of_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    """Both tables follow from the preset and the networks as they are now."""
    runpy.run_path(str(ROOT / ".ci/gpu_parts/hours.py"), run_name="__main__")

    guide = (ROOT / "examples/guides/hardware.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) > 10
    assert [row for row in rows if row not in guide] == []
