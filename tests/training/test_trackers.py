"""Trackers take what the log takes, keep one run over many calls, tell nothing of the machine, and never stop a run."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from latentart.training.log import RunLog
from latentart.training.trackers import TensorBoard, Tracker, Trackers, WeightsAndBiases, numbers_of


class Notebook:
    """A tracker that writes down what it is told, and fails at the named call."""

    def __init__(self, fails_at: str = "") -> None:
        self.fails_at, self.told = fails_at, list[tuple[Any, ...]]()

    def _tell(self, *what: Any) -> None:
        self.told.append(what)
        if what[0] == self.fails_at:
            raise OSError("no\x1b network\nmany more lines")

    def begin(self, step: int) -> None:
        """Write it down."""
        self._tell("begin", step)

    def metrics(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write it down."""
        self._tell("metrics", step, dict(scalars))

    def picture(self, step: int, path: Path) -> None:
        """Write it down."""
        self._tell("picture", step, path.name)

    def close(self) -> None:
        """Write it down."""
        self._tell("close")


def page(folder: Path, step: int) -> Path:
    """Draw a preview."""
    path = folder / f"step-{step}.png"
    Image.new("RGB", (6, 4), (250, step, 0)).save(path)
    return path


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was warned of."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def train(folder: Path, trackers: Trackers, *, resume_step: int = 0, last: int = 3) -> None:
    """Log as a run does."""
    log = RunLog(folder, resume_step, trackers)
    with log.watch():
        for step in range(resume_step + 1, last + 1):
            log.metrics(step, loss=1 / step, stage="l1", best=None, bad=float("nan"), time=1e9, skipped=0)
        log.picture(last, page(folder, last))
        log.picture(last, folder / "not drawn.png")


def test_trackers_get_the_numbers_of_the_log(tmp_path: Path) -> None:
    """Finite numbers and pictures that are there; text, null and the time of day stay in the log."""
    told = Notebook()
    with Trackers({"it": lambda: told}) as trackers:
        train(tmp_path, trackers, resume_step=1)

    assert told.told == [
        ("begin", 1),
        ("metrics", 2, {"loss": 0.5, "skipped": 0.0}),
        ("metrics", 3, {"loss": 1 / 3, "skipped": 0.0}),
        ("picture", 3, "step-3.png"),
        ("close",),
    ]
    assert numbers_of({"a": True, "b": 2, "c": "x"}) == {"b": 2.0}


@pytest.mark.parametrize("call", ["build", "begin", "metrics", "picture", "close"])
def test_a_tracker_that_fails_is_switched_off(tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str) -> None:
    """One warning of one line, in the run's log too; the other tracker and the log have everything."""
    bad, good = Notebook(call), Notebook()

    def build() -> Tracker:
        if call == "build":
            raise SystemError("no\x1b network\nmany more lines")
        return bad

    with Trackers({"Bad": build, "Good": lambda: good}) as trackers:
        train(tmp_path, trackers)

    assert warnings(caplog) == [r"Bad is switched off, the run goes on without it: no\x1b network"]
    assert [what[0] for what in good.told] == ["begin", "metrics", "metrics", "metrics", "picture", "close"]
    assert len([what for what in bad.told if what[0] == call]) == (
        0 if call == "build" else 2 if call == "close" else 1
    )
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    assert call == "close" or "Bad is switched off" in (tmp_path / "log.txt").read_text()


def test_nothing_is_opened_for_a_run_that_does_not_begin(tmp_path: Path) -> None:
    """A run that is finished already leaves no trace in a tracker."""
    with Trackers({"TensorBoard": lambda: TensorBoard(tmp_path / "tensorboard")}) as trackers:
        RunLog(tmp_path, 3, trackers).note("nothing is left to do")

    assert not (tmp_path / "tensorboard").exists()


def test_who_presses_ctrl_c_does_not_wait_for_a_tracker(tmp_path: Path) -> None:
    """An upload is not waited for."""
    told = Notebook()

    def interrupted() -> None:
        with Trackers({"it": lambda: told}) as trackers:
            trackers.begin(0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert told.told == [("begin", 0)]


def curve(folder: Path, name: str = "loss") -> list[tuple[int, float]]:
    """Return what TensorBoard shows of a number."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return [(event.step, round(event.value, 4)) for event in found.Scalars(name)]


def test_tensorboard_shows_curves_and_pages(tmp_path: Path) -> None:
    """The real package reads back the same numbers and a picture of the same size and color."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Trackers({"TensorBoard": lambda: TensorBoard(tmp_path / "tb")}) as trackers:
        train(tmp_path, trackers)
    found = EventAccumulator(str(tmp_path / "tb"))
    found.Reload()

    assert curve(tmp_path / "tb") == [(1, 1.0), (2, 0.5), (3, 0.3333)]
    assert found.Tags()["scalars"] == ["loss", "skipped"]
    (event,) = found.Images("previews")
    (tmp_path / "seen.png").write_bytes(event.encoded_image_string)
    with Image.open(tmp_path / "seen.png") as seen:
        assert (event.step, seen.size, seen.getpixel((0, 0))) == (3, (6, 4), (250, 3, 0))


def test_tensorboard_hides_what_is_made_again(tmp_path: Path) -> None:
    """A call that goes on from step 2, and then back to step 1: each step is there once, as it was made last."""
    with Trackers({"TensorBoard": lambda: TensorBoard(tmp_path / "tb")}) as trackers:
        train(tmp_path, trackers, last=4)
    with Trackers({"TensorBoard": lambda: TensorBoard(tmp_path / "tb")}) as trackers:
        for resume_step, value in ((2, 20.0), (1, 10.0)):
            log = RunLog(tmp_path, resume_step, trackers)
            with log.watch():
                for step in range(resume_step + 1, 5):
                    log.metrics(step, loss=value + step)
        trackers.begin(4)  # a next stage goes on in the same file
        trackers.metrics(5, {"loss": 0.0})

    assert curve(tmp_path / "tb") == [(1, 1.0), (2, 12.0), (3, 13.0), (4, 14.0), (5, 0.0)]
    assert len(list((tmp_path / "tb").iterdir())) == 3


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """It says what to install; the run goes on."""
    monkeypatch.setitem(sys.modules, package, None)
    build: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoard(tmp_path / "tb"),
        "wandb": lambda: WeightsAndBiases(tmp_path, "p", {}),
    }
    with Trackers({package: build[package]}) as trackers:
        train(tmp_path, trackers)

    (warning,) = warnings(caplog)
    assert f'Install it with `pip install ".[{package}]"` in the folder' in warning
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


class FakeWandb(SimpleNamespace):
    """What we use of the package, with a server that remembers: for what cannot be had without a network."""

    def __init__(self, *, has_key: bool = True, answers: bool = True, server_step: int = 0) -> None:
        super().__init__(sent=[], given={}, has_key=has_key, answers=answers, server_step=server_step, ended=[])

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802 - its name there
        """Take them as they are."""
        return settings

    def Image(self, path: str) -> str:  # noqa: N802 - likewise
        """Stand for a picture."""
        return f"picture {Path(path).name}"

    def login(self, *, prompt: bool, verify: bool) -> bool:
        """Tell whether there is a key; never ask."""
        assert not prompt
        assert not verify
        return self.has_key

    def init(self, **given: Any) -> Any:
        """Begin or go on with a run."""
        self.given = given
        if given["mode"] != "offline" and not self.answers:
            raise TimeoutError("no\x1b answer\nat all")
        return SimpleNamespace(
            step=self.server_step, url="https://w/r", offline=given["mode"] == "offline", log=self._log,
            finish=lambda: self.ended.append("finish"),
        )  # fmt: skip

    def teardown(self) -> None:
        """End."""
        self.ended.append("teardown")

    def _log(self, values: dict[str, Any], step: int) -> None:
        self.sent.append((step, values.get("loss", values.get("previews"))))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeWandb]:
    """Put a package in the place of wandb, with no setting in the environment."""
    monkeypatch.delenv("WANDB_MODE", raising=False)

    def put(**options: Any) -> FakeWandb:
        package = FakeWandb(**options)
        monkeypatch.setitem(sys.modules, "wandb", package)
        return package

    return put


def track(folder: Path, **options: Any) -> None:
    """Train with Weights & Biases alone."""
    with Trackers({"W&B": lambda: WeightsAndBiases(folder, "art", {"seed": 1})}) as trackers:
        train(folder, trackers, **options)


def test_one_run_of_wandb_over_many_calls(tmp_path: Path, fake: Callable[..., FakeWandb]) -> None:
    """The second call goes on with the same id; steps that are made again are not sent again."""
    run = tmp_path / "my-art/runs/ldm"
    first = fake()
    track(run)
    second = fake()
    track(run, resume_step=1, last=5)

    assert first.sent == [(1, 1.0), (2, 0.5), (3, 1 / 3), (3, "picture step-3.png")]
    assert second.sent == [(4, 0.25), (5, 0.2), (5, "picture step-5.png")]
    assert first.given["id"] == second.given["id"] == json.loads((run / "wandb.json").read_text())["id"]
    assert (first.given["resume"], first.given["project"], first.given["name"]) == ("allow", "art", "my-art ldm")
    assert (first.given["config"], first.given["mode"], first.ended) == ({"seed": 1}, None, ["finish", "teardown"])
    assert not {"host", "username", "email", "api_key"} & first.given["settings"].keys()


def test_what_wandb_has_of_later_steps_is_said(
    tmp_path: Path, fake: Callable[..., FakeWandb], caplog: pytest.LogCaptureFixture
) -> None:
    """After a crash only the server knows how far it was; steps never go backwards."""
    there = fake(server_step=5)
    track(tmp_path, last=6)

    assert [step for step, _ in there.sent] == [5, 6, 6]
    assert warnings(caplog) == ["Weights & Biases has steps up to 4 already and keeps them as they are"]


def test_without_a_key_nobody_is_asked(
    tmp_path: Path, fake: Callable[..., FakeWandb], caplog: pytest.LogCaptureFixture
) -> None:
    """It writes offline and says how to send that later."""
    there = fake(has_key=False)
    track(tmp_path)

    assert there.given["mode"] == "offline"
    assert [step for step, _ in there.sent] == [1, 2, 3, 3]
    assert "`wandb sync`" in warnings(caplog)[0]


def test_without_a_network_it_writes_to_the_disk(
    tmp_path: Path, fake: Callable[..., FakeWandb], caplog: pytest.LogCaptureFixture
) -> None:
    """A server that does not answer is one warning of one line."""
    there = fake(answers=False)
    track(tmp_path)

    assert there.given["mode"] == "offline"
    assert [step for step, _ in there.sent] == [1, 2, 3, 3]
    assert r"does not answer (no\x1b answer): it writes offline" in warnings(caplog)[0]
    assert len(warnings(caplog)) == 1


def test_a_damaged_note_of_the_id_begins_a_new_run(tmp_path: Path, fake: Callable[..., FakeWandb]) -> None:
    """Whatever lies in its place, an id is letters and digits."""
    for content in ("{", "[]", '{"id": "../x", "step": 3}', '{"id": "abc", "step": "x"}'):
        (tmp_path / "wandb.json").write_text(content)
        there = fake()
        track(tmp_path)

        assert there.given["id"].isalnum()
        assert there.given["id"] != "abc"
        assert [step for step, _ in there.sent] == [1, 2, 3, 3]


OFFLINE = """
import signal, sys, threading
from pathlib import Path
from latentart.training.trackers import Trackers, WeightsAndBiases
before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]
folder = Path(sys.argv[1])
for last in (2, 4):
    with Trackers({"W&B": lambda: WeightsAndBiases(folder, "art", {"seed": 7})}) as trackers:
        trackers.begin(last - 2)
        trackers.metrics(last, {"loss": 1 / last})
        trackers.picture(last, folder / "page.png")
    after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]
    assert before == after, "it took signals"
    assert not [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
"""


def test_the_real_package_works_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls, no output, no signals taken, no thread left that holds the end, nothing of the machine told."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Image.new("RGB", (6, 4)).save(tmp_path / "page.png")

    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, tmp_path], capture_output=True, text=True, check=False, timeout=120
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    name = json.loads((tmp_path / "wandb.json").read_text())
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    content = b"".join(path.read_bytes() for path in files)
    assert name["step"] == 4
    assert {path.name for path in files} == {f"run-{name['id']}.wandb"}
    assert b"loss" in content
    assert b"seed" in content
    host = socket.gethostname()
    for private in (
        sys.executable,
        str(tmp_path),
        *([host] if len(host) > 5 else []),
    ):  # a short one is there by chance
        assert private.encode() not in content, private
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/*.png"))
