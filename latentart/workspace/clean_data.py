"""`latentart clean-data`: the raw folder into the workspace's clean data set.

Launch: ``latentart clean-data`` in a workspace, or ``latentart clean-data RAW --out DIR`` without one.
"""

from __future__ import annotations

import os
from pathlib import Path

from latentart.config.data import DataConfig
from latentart.data.cleaning.clean import clean_folder
from latentart.data.cleaning.report import CleanReport
from latentart.layout import Workspace
from latentart.process.progress import Progress


def clean_data(workspace: Workspace, *, dry_run: bool = False, quiet: bool = False) -> CleanReport:
    """Clean the workspace's raw folder into its data folder and return the report.

    Raises:
        DataError: there is no raw folder, or no sound picture in it.
    """
    return clean_into(workspace.raw, workspace.data, workspace.config.data, dry_run=dry_run, quiet=quiet)


def clean_into(raw: Path, out: Path, config: DataConfig, *, dry_run: bool = False, quiet: bool = False) -> CleanReport:
    """Clean one folder into another with the given settings."""
    with Progress("clean", 1, quiet=quiet) as progress:
        return clean_folder(
            raw,
            out,
            min_bytes=config.min_bytes,
            min_side=config.min_side,
            max_side=config.max_side,
            max_aspect=config.max_aspect,
            file_format=config.file_format,
            quality=config.quality,
            background=config.background,
            max_pixels=config.max_pixels,
            time_limit=config.time_limit,
            near_duplicates=config.near_duplicates,
            labels=config.labels,
            label=config.label,
            workers=config.workers or os.cpu_count() or 1,
            dry_run=dry_run,
            on_progress=progress.show,
        )
