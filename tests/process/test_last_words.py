"""Whose word it is when many processes fail: the one that meets the cause first, and all leave with its code."""

from __future__ import annotations

import subprocess
import sys

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from latentart.process import last_words
from latentart.process.last_words import first_to_end


@pytest.fixture(autouse=True)
def agent(monkeypatch: pytest.MonkeyPatch) -> TCPStore:
    """Serve a store as torchrun does, to a process that has not asked yet."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setattr(last_words, "_answer", None)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    return store


def ask_elsewhere(code: int) -> str:
    """Ask in another process and return what it is told."""
    words = f"from latentart.process.last_words import first_to_end; print(*first_to_end({code}))"
    return subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout.strip()


def test_the_first_speaks_and_the_others_take_its_code() -> None:
    """One that asks again is told the same."""
    assert first_to_end(4) == (True, 4)
    assert ask_elsewhere(5) == "False 4"
    assert first_to_end(4) == (True, 4)


def test_an_echo_waits_for_the_cause(agent: TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who only sees that another is gone leaves it the word; if nothing comes, it speaks after all."""
    monkeypatch.setattr(last_words, "_PATIENCE", 0.1)
    assert first_to_end(5, is_echo=True) == (True, 5)

    monkeypatch.setattr(last_words, "_answer", None)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert ask_elsewhere(4) == "True 4"
    assert first_to_end(5, is_echo=True) == (False, 4)


def test_without_torchrun_each_speaks_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could be asked, or the launcher is gone too."""
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    assert first_to_end(4) == (True, 4)

    monkeypatch.setattr(last_words, "_answer", None)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_PORT", "no number")
    assert first_to_end(5) == (True, 5)
