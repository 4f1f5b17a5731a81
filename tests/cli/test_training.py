"""The options of both trainings: durations are strict, and what cannot be is said before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentart.cli.training import parse_duration
from latentart.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"), [("8h", 28800), ("90m", 5400), ("3600", 3600), ("45s", 45), ("1", 1), ("007m", 420)]
)
def test_a_duration_is_whole_hours_minutes_or_seconds(text: str, seconds: int) -> None:
    """A number alone counts seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "h", "0", "0h", "-1h", "+1h", "1.5h", "1,5h", "8 h", " 8h", "8h ", "8h\n", "1h30m", "8H", "8d", "1e3"),
        *("8hours", "inf", "9999999999", "0x10", "\N{ARABIC-INDIC DIGIT THREE}h"),
    ],
)
def test_any_other_duration_is_refused(text: str) -> None:
    """Nothing is guessed about a run of hours."""
    with pytest.raises(UsageError) as caught:
        parse_duration(text)

    assert caught.value.message == f"'{text}' is not a duration."
    assert "8h, 90m or 3600" in caught.value.hint


@pytest.mark.parametrize("kind", ["vae", "ldm"])
def test_who_trains_with_a_legacy_resampler_is_told_once(
    latentart: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    """On stderr, before anything is read."""
    (tmp_path / "latentart.json").write_text('{"preset": "demo", "vae": {"model": {"upsampling": "transposed"}}}')

    done = latentart("train", kind)

    assert done.err.startswith("vae.model.upsampling 'transposed' is kept for old recipes: it tends to leave checker")
    assert done.err.count("checkerboard") == 1


@pytest.mark.parametrize("kind", ["vae", "ldm"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-time", "soon"), "'soon' is not a duration."),
        (("--max-steps", "0"), "--max-steps"),
        (("--resume", "atuo"), "--resume: there is no checkpoint folder 'atuo'. Give auto, never, or a folder"),
    ],
)
def test_options_that_cannot_be_are_refused(
    latentart: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch, kind: str, words: Any, said: str
) -> None:
    """Exit code 2, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latentart.json").write_text('{"preset": "demo"}')

    done = latentart("train", kind, *words)

    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "runs").exists()
