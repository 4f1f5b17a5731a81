"""Faults around committed folders: full disks, kills, leftovers, hostile JSON."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from latentart.errors import ModelError, ResourceError
from latentart.storage import folders, json_files
from latentart.storage.folders import (
    commit_folder,
    read_json,
    recover_folder,
    remove_leftovers,
    verify_folder,
    write_json_atomic,
)

# every folder the child commits holds one version in two files, so a mixture would be seen
ENDLESS_COMMITS = """
import sys
from pathlib import Path
from latentart.storage.folders import commit_folder, recover_folder
final = Path(sys.argv[1])
recover_folder(final)
for version in range(10**9):
    def write(folder):
        for name in ("a.bin", "b.bin"):
            (folder / name).write_bytes(b"%d" % version * 5000)
    commit_folder(final, write, replace=True)
    print(version, flush=True)
"""


def writer(**files: bytes) -> Callable[[Path], None]:
    """Return a ``write`` that makes the given files, ``a_bin`` as ``a.bin``."""

    def write(folder: Path) -> None:
        for name, content in files.items():
            (folder / name.replace("_", ".")).write_bytes(content)

    return write


@pytest.fixture
def final(tmp_path: Path) -> Path:
    """A committed folder of two small files."""
    folder = tmp_path / "parent" / "model"
    commit_folder(folder, writer(a_bin=b"hello", b_bin=bytes(range(40))))
    return folder


def test_full_disk_is_one_line_with_the_path_and_a_hint(tmp_path: Path) -> None:
    """What the system says about the disk becomes a resource error that names the folder."""

    def write(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ResourceError) as caught:
        commit_folder(tmp_path / "model", write)

    assert str(tmp_path / "model") in caught.value.message
    assert "No space left" in caught.value.message
    assert "Free some space" in caught.value.hint


def test_file_size_limit_keeps_the_old_folder(final: Path) -> None:
    """A real limit of the system, met in mid-write, costs nothing but the new folder."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(ResourceError, match="too large"):
            commit_folder(final, writer(a_bin=bytes(5000)), replace=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    verify_folder(final)


def test_file_in_the_place_of_the_parent_is_a_resource_error(tmp_path: Path) -> None:
    """A parent that is a file is said so, not a traceback."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(ResourceError, match="file"):
        commit_folder(tmp_path / "file" / "model", writer(a_bin=b""))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name what is flushed")
def test_everything_is_flushed_before_the_rename_and_the_parent_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order a power cut needs: files, manifest, folder, rename, parent."""
    events: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        events.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name.split("-")[0])
        real_fsync(descriptor)

    def rename(path: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return real_rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    commit_folder(tmp_path / "model", writer(a_bin=b"1", b_bin=b"2"))

    parent = "sync " + tmp_path.name.split("-")[0]
    manifest_then_folder = ["sync .tmp", "sync .tmp"]
    assert events == ["sync a.bin", "sync b.bin", *manifest_then_folder, "rename to model", parent]


def test_replacement_cut_between_its_renames_is_undone(final: Path) -> None:
    """With only the old folder there, recovering puts it back; a second time changes nothing."""
    final.rename(final.with_name(".old-model"))

    recover_folder(final)
    recover_folder(final)

    verify_folder(final)
    assert [p.name for p in final.parent.iterdir()] == ["model"]


def test_recovered_by_another_process_in_mid_replacement_still_replaces(
    final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old folder put back between the two renames does not stop the new one."""
    calls: list[Path] = []
    real_rename = Path.rename

    def rename(path: Path, target: Path) -> Path:
        result = real_rename(path, target)
        if target.name == ".old-model" and not calls:
            calls.append(target)
            recover_folder(final)
        return result

    monkeypatch.setattr(Path, "rename", rename)
    commit_folder(final, writer(a_bin=b"new"), replace=True)

    assert len(calls) == 1
    assert (final / "a.bin").read_bytes() == b"new"
    verify_folder(final)


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(final: Path) -> None:
    """Only what nobody writes any more is removed; old folders are put back or removed."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    parent = final.parent
    (parent / f".tmp-step-1-{dead.pid}").mkdir()
    (parent / f".tmp-step-1-{dead.pid}" / "half").write_bytes(b"x")
    (parent / f".tmp-state.json-{dead.pid}").write_bytes(b"x")
    (parent / f".tmp-step-2-{os.getpid()}").mkdir()
    (parent / ".old-model").mkdir()
    (parent / ".old-step-9").mkdir()
    (parent / "mine.txt").write_bytes(b"")

    remove_leftovers(parent)

    names = sorted(p.name for p in parent.iterdir())
    assert names == [f".tmp-step-2-{os.getpid()}", "mine.txt", "model", "step-9"]
    remove_leftovers(parent / "nothing")


def kill_in_mid_commit(final: Path, delay: float) -> None:
    """Start the endless commits, wait for the first, and kill them after ``delay`` seconds."""
    child = subprocess.Popen(
        [sys.executable, "-c", ENDLESS_COMMITS, str(final)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(folders.__file__).parents[2])},
    )
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.communicate()


def check_sound_after_kills(final: Path, count: int) -> None:
    """Kill ``count`` commits at different moments: a whole folder of one version is there each time."""
    for number in range(count):
        kill_in_mid_commit(final, delay=0.0137 * (number % 17))
        remove_leftovers(final.parent)

        verify_folder(final)
        assert (final / "a.bin").read_bytes() == (final / "b.bin").read_bytes()
        assert [p.name for p in final.parent.iterdir()] == ["model"]


def test_killed_commit_leaves_a_sound_folder(tmp_path: Path) -> None:
    """SIGKILL at any moment of a replacement leaves one complete folder and no leftovers."""
    check_sound_after_kills(tmp_path / "model", count=8)


@pytest.mark.faults
def test_hundred_killed_commits_leave_a_sound_folder(tmp_path: Path) -> None:
    """The same, a hundred times."""
    check_sound_after_kills(tmp_path / "model", count=100)


def test_json_round_trips_and_replaces(tmp_path: Path) -> None:
    """What was written is read, floats to the last bit; the second text replaces the first."""
    value = {"a": [1, 0.1 + 0.2, 1e-300, None, True], "naïve \ud800": "…"}
    write_json_atomic(tmp_path / "x.json", {"first": 1})
    write_json_atomic(tmp_path / "x.json", value)

    assert read_json(tmp_path / "x.json") == value
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_atomic(tmp_path / "x.json", float("nan"))
    assert read_json(tmp_path / "x.json") == value


def test_json_that_cannot_be_written_is_a_resource_error(tmp_path: Path) -> None:
    """A folder that is not there is said with the path."""
    with pytest.raises(ResourceError, match=r"x\.json"):
        write_json_atomic(tmp_path / "nothing" / "x.json", {})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1, "a": 2}', "'a' is given twice"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": -Infinity}', "-Infinity is not a finite number"),
        (b'{"a": 1e400}', "1e400 is not a finite number"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 10_000, "digits"),
        (b"\xff", "utf-8"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
    ],
)
def test_hostile_json_is_refused_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    """Double keys, numbers that are none, deep nesting, no JSON: one line with file and reason."""
    (tmp_path / "x.json").write_bytes(content)

    with pytest.raises(ModelError, match=rf"x\.json.*{reason}"):
        read_json(tmp_path / "x.json")


def test_huge_json_missing_json_and_pipes_are_refused(tmp_path: Path) -> None:
    """A file over the limit is not parsed, a pipe is not waited for."""
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(json_files.MAX_JSON_BYTES + 1)
    os.mkfifo(tmp_path / "pipe.json")

    with pytest.raises(ModelError, match="larger than"):
        read_json(tmp_path / "huge.json")
    with pytest.raises(ModelError, match="missing"):
        read_json(tmp_path / "pipe.json")
    with pytest.raises(ModelError, match="missing"):
        read_json(tmp_path / "none.json")
