"""Committed folders: whole or not there, every change found, every leftover cleaned."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from latentart.errors import ModelError, ResourceError
from latentart.storage.folders import (
    commit_folder,
    discard_folder,
    verify_folder,
    write_json_atomic,
)


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


def test_committed_folder_holds_what_was_written_and_verifies(final: Path) -> None:
    """A folder that was just committed verifies and leaves nothing beside it."""
    verify_folder(final)

    assert (final / "a.bin").read_bytes() == b"hello"
    assert sorted(p.name for p in final.iterdir()) == ["MANIFEST.json", "a.bin", "b.bin"]
    assert [p.name for p in final.parent.iterdir()] == ["model"]


def test_every_flipped_bit_of_every_file_is_found(final: Path) -> None:
    """No single flipped bit, in the files or in the manifest, passes."""
    unnoticed = []
    for path in sorted(final.iterdir()):
        content = path.read_bytes()
        for bit in range(8 * len(content)):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            try:
                verify_folder(final)
                unnoticed.append((path.name, bit))
            except ModelError:
                pass
        path.write_bytes(content)

    assert unnoticed == []
    verify_folder(final)


@pytest.mark.parametrize("name", ["a.bin", "b.bin", "MANIFEST.json"])
def test_truncated_file_is_named(final: Path, name: str) -> None:
    """A file cut at 0, 1, half or all but one byte is refused by name."""
    content = (final / name).read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 2):
        (final / name).write_bytes(content[:length])

        with pytest.raises(ModelError, match=name):
            verify_folder(final)


def test_missing_and_extra_files_are_named(final: Path) -> None:
    """A file too few, a file too many, a manifest too few: each is said by name."""
    (final / "more.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"more\.bin is an extra file"):
        verify_folder(final)
    (final / "more.bin").unlink()
    (final / "a.bin").unlink()
    with pytest.raises(ModelError, match=r"a\.bin is missing"):
        verify_folder(final)
    (final / "MANIFEST.json").unlink()
    with pytest.raises(ModelError, match=r"MANIFEST\.json is missing"):
        verify_folder(final)
    with pytest.raises(ModelError, match="is not there"):
        verify_folder(final.with_name("nothing"))


def test_what_a_file_browser_leaves_is_no_damage(final: Path) -> None:
    """Looking into a model folder with a desktop's file browser does not spoil it."""
    (final / ".DS_Store").write_bytes(b"x")

    verify_folder(final)


@pytest.mark.parametrize("name", ["a.bin", "MANIFEST.json"])
def test_link_in_place_of_a_file_is_refused(final: Path, name: str) -> None:
    """A link is refused even when what it points to is right: no way leads out of a folder."""
    outside = final.parent / "outside"
    (final / name).rename(outside)
    (final / name).symlink_to(outside)

    with pytest.raises(ModelError, match=f"{name} is not a plain file"):
        verify_folder(final)


def test_newer_format_is_refused_with_its_number(final: Path) -> None:
    """A folder of a later format is refused, and the hint is to update."""
    write_json_atomic(final / "MANIFEST.json", {"format": 7, "other": []})

    with pytest.raises(ModelError, match=r"format 7.*Update latentart"):
        verify_folder(final)


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {"format": 1},
        {"format": 0, "files": {}},
        {"format": 1, "files": []},
        {"format": 1, "files": {"a.bin": 3}},
        {"format": 1, "files": {"a.bin": {"size": 5}}},
        {"format": 1, "files": {}, "more": 1},
    ],
)
def test_manifest_of_another_shape_is_damaged(final: Path, manifest: object) -> None:
    """A manifest that is JSON but not ours is damaged, never a crash."""
    write_json_atomic(final / "MANIFEST.json", manifest)

    with pytest.raises(ModelError, match=r"MANIFEST\.json is damaged"):
        verify_folder(final)


def test_manifest_cannot_name_files_outside(final: Path) -> None:
    """A path in the manifest is never followed."""
    entry = {"size": 0, "sha256": "0" * 64}
    write_json_atomic(final / "MANIFEST.json", {"format": 1, "files": {"../../etc/passwd": entry}})

    with pytest.raises(ModelError, match="passwd is missing"):
        verify_folder(final)


def test_existing_folder_is_never_overwritten(final: Path) -> None:
    """Without ``replace`` a second commit is refused and the first stands."""
    with pytest.raises(ResourceError, match="exists"):
        commit_folder(final, writer(a_bin=b"other"))

    assert (final / "a.bin").read_bytes() == b"hello"
    verify_folder(final)


def test_replace_swaps_the_whole_folder(final: Path) -> None:
    """With ``replace`` the new folder stands alone."""
    commit_folder(final, writer(c_bin=b"new"), replace=True)

    verify_folder(final)
    assert sorted(p.name for p in final.iterdir()) == ["MANIFEST.json", "c.bin"]
    assert [p.name for p in final.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("bug"), OSError(errno.ENOSPC, "full")])
def test_failed_write_leaves_the_old_folder_and_nothing_else(final: Path, error: BaseException) -> None:
    """Whatever ends a write, the old folder stands and the temporary one is gone."""

    def write(folder: Path) -> None:
        (folder / "a.bin").write_bytes(b"half")
        raise error

    with pytest.raises((KeyboardInterrupt, ValueError, ResourceError)):
        commit_folder(final, write, replace=True)

    verify_folder(final)
    assert [p.name for p in final.parent.iterdir()] == ["model"]


def test_folders_inside_are_refused(tmp_path: Path) -> None:
    """A committed folder is flat."""
    with pytest.raises(ValueError, match="plain files only"):
        commit_folder(tmp_path / "model", lambda folder: (folder / "inner").mkdir())

    assert list(tmp_path.iterdir()) == []


def test_files_are_as_readable_as_their_folder(tmp_path: Path) -> None:
    """Files that a library made private do not stay private in a folder made for sharing."""
    before = os.umask(0o022)
    try:
        commit_folder(tmp_path / "model", lambda f: (f / "a.bin").touch(mode=0o600))
    finally:
        os.umask(before)

    assert (tmp_path / "model" / "a.bin").stat().st_mode & 0o777 == 0o644


def test_discarded_folder_is_gone(final: Path) -> None:
    """Discarding leaves nothing, and discarding what is not there is said."""
    discard_folder(final)

    assert list(final.parent.iterdir()) == []
    with pytest.raises(ResourceError, match="Cannot delete"):
        discard_folder(final)
