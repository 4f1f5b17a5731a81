"""A run as one page: what is on it, that it stands alone, and what may lie in a run."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentart.errors import UsageError
from latentart.reporting.page import MARK, render
from latentart.reporting.report import LEAST_PREVIEWS, MAX_PREVIEWS, build_page, find_run, report

Run = Callable[..., Any]
EVIL = "<script>alert(1)</script>\"'&"
VOID = {"meta", "link", "img"}


class Reader(HTMLParser):
    """Reads a page as a browser would: its tags with attributes, its text, and whether all that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag that closes itself."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Close the last tag, which must be the same."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Remember text."""
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


def write_run(run: Path, *, steps: int = 400, previews: int = 3, name: str = "Cubism") -> Path:
    """Write a denoiser's run that learns, with everything that a run may have."""
    (run / "previews").mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        loss = 0.3 + 0.7 * 0.99**step
        parts = {f"loss_t{i}": loss for i in range(8)}
        lines.append({"step": step, "loss": loss, "gradient_norm": 1.0, "lr": 1e-3, "time": 1e9 + step, **parts})
        lines[-1] |= {"images_per_second": 50.0, "data_share": 0.25, "skipped_steps": 0.0}
        if step % 50 == 0:
            lines.append({"step": step, "held_out_loss": loss * 1.01})
            lines.append({"step": step, "recognition": 0.9, "recognition_chance": 0.1, "recognition_real": 0.95})
            lines[-1]["judged_samples"] = 64
            kind = "too_early" if step < 200 else "learning"
            lines.append({"step": step, "verdict": kind, "evidence": f"seen at {step}", "advice": "Go on."})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "config.json").write_text(json.dumps({"ldm": {"training": {"steps": 2 * steps}}, "name": name}))
    (run / "machine.json").write_text(json.dumps({"torch": "2.x", "arguments": ["latentart", name]}))
    (run / "log.txt").write_text(f"2026 began {name}\n")
    evaluation = {"step": steps, "settings": {"sampler": name}, "fid": 12.345678, "rows": [1, 2]}
    (run / "evaluations.jsonl").write_text("torn\n" + json.dumps(evaluation) + "\n")
    for i in range(previews):
        color = (i * 37 % 256, 100, 200)
        Image.new("RGB", (64, 128), color).save(run / "previews" / f"step-{(i + 1) * 100:08d}.png")
    return run


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    """Return such a run."""
    return write_run(tmp_path / "art" / "runs" / "ldm")


def read(run: Path, **options: Any) -> Reader:
    """Return the report of a run, read."""
    return Reader(report(run, **options).path.read_text(encoding="utf-8"))


def test_a_pause_between_two_calls_is_no_training(learned: Path) -> None:
    """A run that stood for five minutes, and begins again as its log says, was no longer at work."""
    metrics = learned / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    later = [line | {"time": line["time"] + 300} if "time" in line and line["step"] > 200 else line for line in lines]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in later))
    began = [datetime.fromtimestamp(1e9 + second, UTC).isoformat(sep=" ") for second in (0, 500)]
    (learned / "log.txt").write_text("".join(f"{time} denoiser: steps 0 to 800, fp32\n" for time in began))

    assert "time6 min 30 s" in read(learned).text


@pytest.mark.parametrize("log", ["9999-99-99 99:99:99+99:99 denoiser: steps 0 to 800, fp32", "2026 denoiser: steps 0"])
def test_a_log_of_other_words_is_no_matter(learned: Path, log: str) -> None:
    """What is no time is no call's begin."""
    (learned / "log.txt").write_text(log)

    assert "time6 min 30 s" in read(learned).text


def test_everything_is_on_the_page(learned: Path) -> None:
    """Verdict, figures, curves, losses by noise, previews, scores, machine, log and config."""
    page = read(learned)

    assert "Denoiser: art" in page.text
    assert "Learning: the loss fell" in " ".join(page.text.split())
    for figure in ("steps400 of 800", "time6 min 30 s", "wait for data25%", "recognized90%", "images per second50"):
        assert figure in page.text
    labels = [svg["aria-label"] or "" for svg in page.all("svg")]
    assert [label.split(" over the steps")[0] for label in labels] == [
        "Loss",
        "Judged samples, as shares",
        "Gradient norm",
        "Learning rate",
        "Images per second",
        "Training loss by noise",
    ]
    assert "training 0.31" in labels[0]
    assert [img["alt"] for img in page.all("img")] == [
        "the newest page of previews, step 300",
        "a page of previews, step 100",
        "a page of previews, step 200",
    ]
    for words in ("12.35", "settings.sampler", "2.x", "latentart, Cubism", "2026 began Cubism", '"name": "Cubism"'):
        assert words in page.text
    assert "rows" not in page.text


@pytest.mark.parametrize(("planned", "kind"), [(10, "finished"), (20, None), (None, None)])
def test_a_finished_run_is_judged_on_the_page(tmp_path: Path, planned: int | None, kind: str | None) -> None:
    """By its one measurement; without a plan nobody knows that it is finished."""
    run = tmp_path / "art/runs/ldm"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 10, "loss": 0.4}\n{"step": 10, "held_out_loss": 0.5}\n')
    (run / "config.json").write_text(json.dumps({"ldm": {"training": {"steps": planned}}}))

    verdict = build_page(run).verdict

    assert (verdict and verdict[0]) == kind


def test_the_time_left_is_that_of_the_present_stage(tmp_path: Path) -> None:
    """Twenty of its sixty steps took four seconds; the slow stage before it does not count."""
    run = tmp_path / "art/runs/vae"
    run.mkdir(parents=True)
    lines = [("l1", 10, 100.0), ("l1", 20, 190.0), ("hires", 30, 192.0), ("hires", 40, 194.0)]
    written = [json.dumps({"stage": stage, "step": step, "time": time, "loss": 0.5}) for stage, step, time in lines]
    (run / "metrics.jsonl").write_text("\n".join(written) + "\n")
    (run / "config.json").write_text(json.dumps({"vae": {"stages": [{"name": "hires", "steps": 60}]}}))

    assert build_page(run).facts["left"] == "8.0 s of hires"


@pytest.mark.parametrize(("trained", "verdict"), [(16, "finished"), (10, None)])
@pytest.mark.parametrize("kind", ["vae", "ldm"])
def test_a_run_of_epochs_is_finished_where_its_model_says_so(
    tmp_path: Path, kind: str, trained: int, verdict: str | None
) -> None:
    """The config has no count of steps then; a stage's own begins where the one before it ended."""
    run, stage = tmp_path / "art/runs" / kind, {"stage": "hires"} if kind == "vae" else {}
    (run / "model").mkdir(parents=True)
    lines = [
        {"step": 10, "loss": 0.5, **stage, **({"stage": "l1"} if stage else {})},
        {"step": 16, "loss": 0.4, **stage},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    length = {"epochs": 1.0, "steps": None}
    config = {"ldm": {"training": length}, "vae": {"stages": [{"name": "hires", **length}]}}
    (run / "config.json").write_text(json.dumps(config))
    about = {"training": {kind: {"step": trained, "steps": 16 if trained == 16 else 30}}}
    (run / "model/model.json").write_text(json.dumps(about))

    page = build_page(run)

    assert (page.verdict and page.verdict[0]) == verdict
    assert page.facts["steps"] == ("16" if stage else f"16 of {about['training'][kind]['steps']}")
    assert (f"<code>latentart evaluate {kind}</code>" in render("page.html.j2", page)) == (verdict is not None)


def test_verdicts_that_are_alike_are_one_row(learned: Path) -> None:
    """With the steps from the first to the last of them, and the evidence of the last."""
    assert build_page(learned).verdicts == [
        ["50 to 150", "too early", "seen at 150"],
        ["200 to 400", "learning", "seen at 400"],
    ]


def test_the_page_needs_nothing_else(learned: Path) -> None:
    """No script, no address outside, pictures as data that decode, a policy that forbids the rest; it fits a phone."""
    page = read(learned)

    assert {tag for tag, _ in page.tags} & {
        "script",
        "iframe",
        "object",
        "embed",
        "audio",
        "video",
        "form",
        "a",
    } == set()
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    for image in page.all("img"):
        head, _, content = (image["src"] or "").partition(",")
        assert head == "data:image/jpeg;base64"
        assert base64.b64decode(content, validate=True)[:2] == b"\xff\xd8"
        assert image["width"]
        assert image["height"]
    addresses = [value or "" for _, attributes in page.tags for name, value in attributes.items() if "href" in name]
    assert all(value.startswith(("#", "data:,")) or "w3.org" in value for value in addresses)
    metas = {meta.get("name") or meta.get("http-equiv"): meta["content"] or "" for meta in page.all("meta")[1:]}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["Content-Security-Policy"].startswith("default-src 'none';")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_names_are_only_text(tmp_path: Path) -> None:
    """Markup in folders, names, logs, configs, machine, scores and evidence never becomes markup."""
    run = write_run(tmp_path / f"art {EVIL.replace('/', '')}" / "runs" / "ldm", name=EVIL)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 401, "verdict": "stalled", "evidence": EVIL, "advice": EVIL, EVIL: 1.0}) + "\n")
    (run / "log.txt").write_bytes(EVIL.encode() + b"\x00\x1b[31m\xff\xe2\x80\xae\n</pre>\n")
    plain = write_run(tmp_path / "plain" / "runs" / "ldm")

    page, other = read(run), read(plain)

    assert len(page.tags) == len(other.tags) + len(("tr", "td", "td", "td"))  # the verdict more
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(EVIL) == 4  # log, machine, scores, evidence
    assert "\\x1b[31m" in page.text
    assert "\u202e" not in page.text


GARBAGE = [
    b"",
    b"\n",
    b"{",
    b"null\n",
    b"\x00" * 5000,
    b"[" * 50_000,
    b'{"step": 1e999}\n',
    b'{"step": 5, "loss": "x"}\n',
]


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json", "machine.json", "log.txt", "evaluations.jsonl"])
def test_a_damaged_run_has_a_page(tmp_path: Path, name: str) -> None:
    """Whatever one of its files holds; the previews are shown."""
    run = write_run(tmp_path / "art" / "runs" / "ldm", steps=0, previews=1)
    for content in GARBAGE:
        (run / name).write_bytes(content)

        page = read(run)

        assert "Denoiser: art" in page.text
        assert len(page.all("img")) == 1


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "machine.json", "log.txt", "evaluations.jsonl", "previews/step-1.png"]
)
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_left_alone(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    """Nobody waits on a named pipe, and a folder of that name is no end of the page."""
    run = write_run(tmp_path / "art" / "runs" / "ldm", steps=0, previews=0)
    (run / name).unlink(missing_ok=True)
    make(run / name)

    page = read(run)

    assert "Denoiser: art" in page.text
    assert ("metrics.jsonl cannot be read" in page.text) == (name == "metrics.jsonl")
    assert ("1 preview could not be read." in page.text) == name.startswith("previews")


def test_what_could_not_be_read_is_said(learned: Path) -> None:
    """Torn lines and previews are counted."""
    with (learned / "metrics.jsonl").open("a") as file:
        file.write("torn\n{\n")
    (learned / "previews" / "step-00000200.png").write_bytes(b"no picture")
    (learned / "previews" / "foreign.png").write_bytes(b"no picture")

    page = read(learned)

    assert "2 lines of metrics.jsonl are torn or foreign and were left out." in page.text
    assert "1 preview could not be read." in page.text
    assert len(page.all("img")) == 2


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    """With no numbers yet."""
    (tmp_path / "config.json").write_text("{}")

    page = read(tmp_path)

    assert "There are no numbers of this run yet." in page.text
    assert page.all("svg") == []


def test_previews_are_thinned(tmp_path: Path) -> None:
    """At most 24, evenly, the first and the last among them."""
    page = build_page(write_run(tmp_path / "ldm", previews=60))

    steps = [preview.step for preview in page.previews]
    assert len(steps) == MAX_PREVIEWS - 1
    assert steps[0] == 100
    assert {b - a for a, b in pairwise(steps)} <= {200, 300}
    assert page.last_preview is not None
    assert page.last_preview.step == 6000


def test_our_report_is_replaced_and_no_other_file(learned: Path, tmp_path: Path) -> None:
    """A foreign file, a folder or a link that leads nowhere are left as they are."""
    first = report(learned).path.read_bytes()
    assert MARK.encode() in first
    (learned / "log.txt").write_text("another line\n")
    assert report(learned).path.read_bytes() != first
    (tmp_path / "shared.html").symlink_to(learned / "report.html")
    (learned / "report.html").write_bytes(first)
    assert report(learned, tmp_path / "shared.html").path.is_symlink()
    assert (learned / "report.html").read_bytes() != first
    (tmp_path / "shared.html").unlink()

    (tmp_path / "mine.html").write_text("<p>my own page</p>")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "link.html").symlink_to(tmp_path / "nowhere")
    for name in ("mine", "folder", "link"):
        with pytest.raises(UsageError, match="is no report of ours"):
            report(learned, tmp_path / f"{name}.html")
    assert (tmp_path / "mine.html").read_text() == "<p>my own page</p>"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["art", "folder.html", "link.html", "mine.html"]


def test_a_run_is_found_by_word_or_path(learned: Path, tmp_path: Path) -> None:
    """The denoiser's first; what is no run is refused with a hint."""
    runs = learned.parent
    vae = write_run(runs / "vae")

    assert find_run(runs, None) == learned
    assert find_run(runs, "vae") == vae
    assert find_run(tmp_path, str(vae)) == vae
    (learned / "metrics.jsonl").rename(tmp_path / "a")
    (learned / "config.json").unlink()
    (learned / "log.txt").unlink()
    assert find_run(runs, None) == vae
    for asked in ("ldm", str(tmp_path)):
        with pytest.raises(UsageError, match="there is no run at"):
            find_run(runs, asked)


def test_the_reports_of_a_real_workspace(run: Run, workspace: Path, snapshot: Callable[[Path], Any]) -> None:
    """Both runs of a workspace, by the command line; nothing but the pages is written."""
    before = snapshot(workspace)

    done = run(workspace, "report")
    assert (done.code, done.out) == (0, "runs/ldm/report.html\n")
    done = run(workspace, "report", "vae", "--json")
    written = json.loads(done.out)
    assert written == {
        "path": "runs/vae/report.html",
        "size_bytes": (workspace / "runs/vae/report.html").stat().st_size,
    }
    assert run(workspace, "report", workspace / "runs/ldm", "--out", workspace / "new/page.html").code == 0

    after = snapshot(workspace)
    assert after.keys() - before.keys() == {"runs/ldm/report.html", "runs/vae/report.html", "new/page.html"}
    assert {name: after[name] for name in before} == before
    page = Reader((workspace / "runs/vae/report.html").read_text())
    assert "Autoencoder: art" in page.text
    assert "hires" in page.text
    assert any("Reconstruction error" in (svg["aria-label"] or "") for svg in page.all("svg"))


def test_a_report_of_nothing_is_refused(run: Run, tmp_path: Path) -> None:
    """In one line, outside a workspace and for a folder that is no run."""
    assert "latentart.json" in run(tmp_path, "report").error(3)
    (tmp_path / "empty").mkdir()
    assert "there is no run at empty" in run(tmp_path, "report", "empty").error(2)


@pytest.mark.slow
def test_a_long_run_has_a_small_page(tmp_path: Path) -> None:
    """A metrics line for every one of 100,000 steps and 100 noisy previews make less than 5 MB."""
    run = write_run(tmp_path / "ldm", steps=400, previews=0)
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(1, 100_001):
            numbers = {"loss": 1 / step, "gradient_norm": 1.0 + step % 7, "lr": 1e-3, "images_per_second": step % 11}
            file.write(json.dumps({"step": step, **numbers} | {f"loss_t{i}": i / step for i in range(8)}) + "\n")
    for i in range(100):
        Image.effect_noise((1000, 2000), 120).convert("RGB").save(
            run / "previews" / f"step-{(i + 1) * 1000:08d}.png", compress_level=1
        )

    done = report(run)

    assert done.num_bytes == done.path.stat().st_size < 5e6
    page = Reader(done.path.read_text())
    assert LEAST_PREVIEWS <= len(page.all("img")) < MAX_PREVIEWS  # fewer, as each is of some megabytes
    assert any(f"one in {stride} was read" in page.text for stride in range(20, 31))
