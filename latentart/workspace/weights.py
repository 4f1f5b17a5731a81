"""`latentart weights`: the trained networks behind LPIPS and FID; which are here, how to get one, is one whole."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentart.config.vae import PerceptualConfig
from latentart.config.workspace import CONFIG_NAME
from latentart.errors import DownloadError, UsageError, nearest
from latentart.layout import Workspace
from latentart.model.weights.inception import INCEPTION, InceptionFile, check_inception, inception_file
from latentart.model.weights.perceptual import BACKBONES, SOURCE, BackboneFile, check_weights, hub_file
from latentart.process.progress import Progress
from latentart.storage.download import bytes_received, fetch_file, find_fault

logger = logging.getLogger(__name__)


def known_files() -> dict[str, BackboneFile | InceptionFile]:
    """Return every file by the name it is asked for."""
    return {**{str(name): file for name, file in BACKBONES.items()}, "inception": INCEPTION}


def place_of(name: str) -> Path:
    """Return where torch keeps the file of that name."""
    return inception_file() if name == "inception" else hub_file(name)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Chosen:
    """A backbone, or inception, and the file to look at; ``is_own`` where a config names another place than torch's."""

    backbone: str
    path: Path
    is_own: bool = False


@dataclass(frozen=True)
class WeightsReport:
    """What became of one file; ``fault`` is a sentence on what is wrong with it, or empty."""

    backbone: str
    path: str
    fault: str = ""
    was_there: bool = True


def list_weights() -> list[dict[str, Any]]:
    """Return of each backbone its file, size and place, and how much of it is there; nothing is read."""
    rows = []
    for backbone, known in known_files().items():
        path = place_of(backbone)
        try:
            size, unfinished = path.stat().st_size if path.is_file() else 0, bytes_received(path)
        except OSError:  # a home that this user may not read
            size = unfinished = 0
        rows.append(
            {
                "backbone": backbone,
                "file": known.file_name,
                "megabytes": known.megabytes,
                "bytes": known.num_bytes,
                "sha256": known.sha256,
                "path": str(path),
                "is_there": size == known.num_bytes,
                "bytes_there": size,
                "bytes_unfinished": unfinished,
            }
        )
    return rows


def choose_weights(names: Sequence[str], config_path: Path | None = None) -> list[Chosen]:
    """Return the named backbones; without names that of the workspace, and where there is none vgg16.

    Raises:
        UsageError: no such backbone; the nearest is offered.
        ConfigError: the workspace's config is missing or wrong.
    """
    known = known_files()
    for name in names:
        if name not in known:
            why = "'random' has no weights." if name == "random" else f"there is no backbone '{name}'."
            raise UsageError(f"{why}{nearest(name, known)}", f"Backbones: {', '.join(known)}.")
    if names:
        return [Chosen(name, place_of(name)) for name in dict.fromkeys(names)]
    is_workspace = config_path is not None or Path(CONFIG_NAME).is_file()
    perceptual = PerceptualConfig()
    if is_workspace:
        workspace = Workspace.open(config_path)
        workspace.name_outside("vae.perceptual.weights")
        perceptual = workspace.config.vae.perceptual
    if perceptual.backbone == "random":
        logger.info("the workspace's LPIPS backbone is 'random', which has no weights")
        return []
    if perceptual.weights:
        return [Chosen(perceptual.backbone, Path(perceptual.weights).expanduser(), is_own=True)]
    return [Chosen(perceptual.backbone, hub_file(perceptual.backbone))]


def fetch_weights(
    chosen: Sequence[Chosen], base_url: str | None = None, *, quiet: bool = False
) -> Iterator[WeightsReport]:
    """Bring each file to where torch keeps its own, unless it is there and whole; ``base_url`` else PyTorch's site.

    Raises:
        DownloadError: it cannot be had.
        ResourceError: another process is fetching it, or the disk does not take it.
    """
    for one in chosen:
        known, path = known_files()[one.backbone], place_of(one.backbone)
        if one.is_own:
            logger.warning("this workspace reads %s (vae.perceptual.weights), not what is fetched now", one.path)
        fault = find_fault(path, known.num_bytes, known.sha256)
        if not fault:
            logger.info("%s is here already, and whole", known.file_name)
        else:
            if path.is_file():
                logger.warning("%s %s; it will be replaced", path, fault)
            total, start = round(known.num_bytes / 2**20), round(bytes_received(path) / 2**20)
            with Progress(f"{known.file_name}, MB", total, start, quiet=quiet) as progress:
                usual = known.source if isinstance(known, InceptionFile) else SOURCE
                folder = (base_url or usual).removesuffix(known.file_name).rstrip("/")
                fetch_file(
                    f"{folder}/{known.file_name}",
                    path,
                    num_bytes=known.num_bytes,
                    sha256=known.sha256,
                    on_progress=lambda received: progress.update(round(received / 2**20)),
                )
        yield WeightsReport(one.backbone, str(path), was_there=not fault)


def import_backbone(name: str, file: Path) -> WeightsReport:
    """Bring a file that is here to where torch keeps its own, if it is the published one bit for bit.

    Raises:
        DownloadError: it is not there, or another file.
        ResourceError: the disk does not take it.
    """
    (chosen,) = choose_weights([name])
    known = known_files()[chosen.backbone]
    if fault := find_fault(file, known.num_bytes, known.sha256):
        msg = f"{file} {fault}." if file.is_file() else f"there is no file {file}."
        raise DownloadError(msg, f"Expected the published {known.file_name}: `latentart weights fetch {name}`.")
    if not find_fault(chosen.path, known.num_bytes, known.sha256):
        logger.info("%s is here already, and whole", known.file_name)
        return WeightsReport(chosen.backbone, str(chosen.path))
    fetch_file(file.resolve().as_uri(), chosen.path, num_bytes=known.num_bytes, sha256=known.sha256)
    return WeightsReport(chosen.backbone, str(chosen.path), was_there=False)


def verify_weights(chosen: Sequence[Chosen]) -> Iterator[WeightsReport]:
    """Read the whole of each file and say what is wrong with it."""
    for one in chosen:
        try:
            if one.backbone == "inception":
                check_inception(one.path)
            else:
                check_weights(one.backbone, one.path)  # type: ignore[arg-type]
            fault = ""
        except DownloadError as error:
            fault = error.message
        yield WeightsReport(one.backbone, str(one.path), fault)


def require_no_fault(reports: Sequence[WeightsReport]) -> None:
    """Refuse files that are missing or wrong, all in one line.

    Raises:
        DownloadError: there is one.
    """
    wrong = [report for report in reports if report.fault]
    if wrong:
        names = " ".join(report.backbone for report in wrong)
        is_elsewhere = any(Path(report.path) != place_of(report.backbone) for report in wrong)
        then = " and set vae.perceptual.weights=null, or name a sound file there" if is_elsewhere else ""
        raise DownloadError(" ".join(report.fault for report in wrong), f"Run `latentart weights fetch {names}`{then}.")
