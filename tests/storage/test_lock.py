"""A folder's lock: held while its process lives, taken over when it is gone, never guessed about another machine."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from latentart.errors import ResourceError
from latentart.storage.lock import Holder, hold_lock, myself, process_start

HOLDING = """
import sys, time
from pathlib import Path
from latentart.storage.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
RACING = """
import sys, time
from pathlib import Path
from latentart.errors import ResourceError
from latentart.storage.lock import hold_lock
print("ready", flush=True)
sys.stdin.readline()
try:
    with hold_lock(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
except ResourceError:
    print("refused", flush=True)
"""


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start a process and wait for its first line."""
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdin=pipe, stdout=pipe, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def parent(**changes: object) -> Holder:
    """Return the lock of a process that lives and is not ours: the parent of this one."""
    return replace(myself(), pid=os.getppid(), started=process_start(os.getppid()), **changes)


def test_a_lock_is_held_once_and_gone_afterwards(tmp_path: Path) -> None:
    """A second one in the same process is refused too; after an error the folder is free."""

    def work() -> None:
        with hold_lock(tmp_path):
            with pytest.raises(ResourceError, match=f"in use by process {os.getpid()}"), hold_lock(tmp_path):
                pass
            assert json.loads((tmp_path / "lock").read_text()) == asdict(myself())
            raise KeyError

    with pytest.raises(KeyError):
        work()

    assert list(tmp_path.iterdir()) == []


def test_a_living_process_is_named_and_a_killed_one_is_no_obstacle(tmp_path: Path) -> None:
    """The hint names the file; what SIGKILL leaves is taken over."""
    child = start(HOLDING, tmp_path)
    try:
        with pytest.raises(ResourceError) as caught, hold_lock(tmp_path):
            pass
        assert f"in use by process {child.pid}." in caught.value.message
        assert str(tmp_path / "lock") in caught.value.hint
        assert (tmp_path / "lock").exists()
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert (tmp_path / "lock").exists()

    with hold_lock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_of_several_that_find_a_stale_lock_one_gets_it(tmp_path: Path) -> None:
    """However close together they start."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for _ in range(3):
        (tmp_path / "lock").write_text(str(dead.pid))
        racers = [start(RACING, tmp_path) for _ in range(3)]
        said = []
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for racer in racers:
            assert racer.stdout is not None
            said.append(racer.stdout.readline())
        for racer in racers:
            racer.communicate("end\n")

        assert sorted(said) == ["held\n", "refused\n", "refused\n"]


@pytest.mark.parametrize(
    "holder",
    [
        lambda: replace(parent(), started=1),  # its id is in use again
        lambda: parent(boot="00000000-0000-0000-0000-000000000000"),  # the machine was started anew
        lambda: replace(parent(), host="a-container", started=1, pid=1),  # of this machine: its file lock is free
        lambda: replace(myself(), pid=2**22 + 5),
    ],
)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux to tell processes apart")
def test_a_stale_lock_is_taken_over(tmp_path: Path, holder: Callable[[], Holder]) -> None:
    """The id alone says little: its start, the boot and the file's own lock say the rest."""
    (tmp_path / "lock").write_text(json.dumps(asdict(holder())))

    with hold_lock(tmp_path):
        pass


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: json.dumps(asdict(parent())), f"process {os.getppid()}."),
        (lambda: str(os.getppid()), f"process {os.getppid()}."),  # as older versions wrote it
        (
            lambda: json.dumps(asdict(parent(host="node17", boot="another"))),
            f"process {os.getppid()} on the machine 'node17', which cannot be asked from here.",
        ),
    ],
)
def test_a_lock_that_may_be_held_is_not_touched(tmp_path: Path, content: Callable[[], str], said: str) -> None:
    """Where file locks do not work, and for other machines, what is written counts."""
    (tmp_path / "lock").write_text(content())

    with pytest.raises(ResourceError) as caught, hold_lock(tmp_path):
        pass

    assert said in caught.value.message
    assert (tmp_path / "lock").read_text() == content()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"pid": 1, "more": 2}', '{"pid": "1"}', "null", "\x00", "1e999", "9" * 4000, "-1", "[" * 10**5],
    ids=lambda content: content[:9] or "nothing",
)
def test_a_lock_that_names_nobody_is_taken_over(tmp_path: Path, content: str) -> None:
    """As a power cut leaves it, or a stranger."""
    (tmp_path / "lock").write_text(content)

    with hold_lock(tmp_path):
        pass


def test_a_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(ResourceError, match="nothing cannot be written"), hold_lock(tmp_path / "nothing"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks there")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_on_a_disk_without_file_locks_the_note_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A run works there, and a living process keeps others out."""
    import fcntl

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with hold_lock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text()) == asdict(myself())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "lock").write_text(json.dumps(asdict(parent())))

    with pytest.raises(ResourceError, match=f"in use by process {os.getppid()}"), hold_lock(tmp_path):
        pass
