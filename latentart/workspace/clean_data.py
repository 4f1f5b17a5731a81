"""`latentart clean-data`: the raw folder into the workspace's clean data set.

Launch: ``latentart clean-data`` in a workspace, or ``latentart clean-data RAW --out DIR`` without one.
"""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

from latentart.config.data import DataConfig
from latentart.data.cleaning.clean import clean_folder
from latentart.data.cleaning.label_table import LabelChoice
from latentart.data.cleaning.picture import CleanRules
from latentart.data.cleaning.report import CleanReport
from latentart.layout import Workspace
from latentart.process.host_memory import most_processes
from latentart.process.progress import Progress

READ = ("data.raw", "data.labels", "data.link_root")  # settings of what cleaning reads
WORKER_BYTES = 10**8  # of a process that decodes, pictures of the usual size included


def clean_data(workspace: Workspace, *, dry_run: bool = False, quiet: bool = False) -> CleanReport:
    """Clean the workspace's raw folder into its data folder and return the report.

    Raises:
        DataError: there is no raw folder, or no sound picture in it.
    """
    workspace.name_outside(*READ)
    return clean_into(workspace.raw, workspace.data, workspace.config.data, dry_run=dry_run, quiet=quiet)


def clean_into(raw: Path, out: Path, config: DataConfig, *, dry_run: bool = False, quiet: bool = False) -> CleanReport:
    """Clean one folder into another with the given settings."""
    with Progress("clean", 1, quiet=quiet) as progress:
        return clean_folder(
            raw,
            out,
            CleanRules(**config.model_dump(include={rule.name for rule in fields(CleanRules)})),
            LabelChoice(config.labels, config.label),
            level=config.level,
            workers=min(config.workers or os.cpu_count() or 1, most_processes(WORKER_BYTES)),
            dry_run=dry_run,
            on_progress=progress.show,
        )
