"""Tables whose paths are not those of the raw folder."""

from __future__ import annotations

from pathlib import Path

from latentart.data.cleaning.label_table import Labels
from latentart.data.cleaning.table_paths import meet_files


def test_files_of_one_name_are_found_at_once(tmp_path: Path) -> None:
    """A folder for each picture, and a table of full paths: to compare all with all would take minutes."""
    names = [f"picture {i}/full.jpg" for i in range(1000)]
    for name in names:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    labels = Labels(("style",), "style", {f"/scans/2019/{name}": ("Cubism",) for name in names}, {}, [])

    found = meet_files(labels, tmp_path, tmp_path / "labels.csv")

    assert list(found.sources()) == names
