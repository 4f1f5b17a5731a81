"""`latentart studio`: the page of a workspace, or of a model folder, in the browser of this machine.

Launch: ``latentart studio`` in a workspace; ``--host 0.0.0.0`` for a phone in the same network, by a link with a token.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from latentart.config.sample import SampleConfig
from latentart.config.workspace import find_config
from latentart.layout import Workspace
from latentart.process.signals import raising_when_told
from latentart.studio.app import build_app
from latentart.studio.drawing import Desk
from latentart.studio.server import bind, serve

if TYPE_CHECKING:
    from latentart.studio.easel import Easel


@dataclass(frozen=True)
class Place:
    """What the studio is opened on.

    Attributes:
        workspace: None where it is a model folder alone.
        model: the model's folder; ``is_named`` tells that a command line must name it.
    """

    title: str
    model: Path
    samples: Path
    config: SampleConfig
    workspace: Workspace | None
    is_named: bool


def find_place(path: Path | None, model: Path | None) -> Place:
    """Return what is meant by a workspace or model folder, else the current one, with or without another model.

    Raises:
        ConfigError: there is no workspace.
    """
    if path is not None and (path / "model.json").is_file():
        model, path = model or path, None
    if model is not None and path is None:
        return Place(model.resolve().name, model, Path("samples"), SampleConfig(), None, is_named=True)
    where = path or Path()
    workspace = Workspace.open(find_config(where) if where.is_dir() else where)
    own = workspace.ldm_run / "model"
    title, samples, config = workspace.folder.resolve().name, workspace.samples, workspace.config.sample
    return Place(title, model or own, samples, config, workspace, is_named=model is not None)


def studio(place: Place, host: str, port: int, device: str | None, greet: Callable[[str], None]) -> None:
    """Serve the page until a signal comes; ``greet`` is told its address once it can be opened.

    Raises:
        ResourceError: the port is busy, or the host no address of this machine.
    """
    listening = bind(host, port)
    number, is_local = listening.getsockname()[1], is_loopback(host)
    token = None if is_local else secrets.token_urlsafe(24)
    names = {"localhost", "127.0.0.1", "[::1]", host}
    hosts = frozenset(f"{name}:{number}" for name in names) if is_local else None
    desk = Desk(lambda: make_easel(place, device), place.samples)
    try:
        app = build_app(place.title, desk, other_routes(place, desk), hosts, token)
        desk.warm_up()
        with raising_when_told():  # that what was sent is deleted, whatever signal it is
            greet(address_of(host, number, token))
            serve(app, listening, desk.uploads.close)
    finally:
        desk.close()
        listening.close()


def other_routes(place: Place, desk: Desk) -> list[Route]:
    """Return the routes of the tabs that a workspace has beside Draw."""
    if place.workspace is None:
        return []
    from latentart.studio.looking import Pictures
    from latentart.studio.watching import Watch

    pictures = Pictures(place.workspace.data, place.workspace.cache)
    near = pictures.nearest_to(place.workspace, desk.drawn)
    return [*Watch(place.workspace.ldm_run.parent).routes(), *pictures.routes(), near]


def make_easel(place: Place, device: str | None) -> Easel:
    """Return what draws with the place's model; this loads PyTorch."""
    from latentart.model.folder import load_model
    from latentart.model.generate import SamplerSettings
    from latentart.process.devices import Placement, choose_device
    from latentart.sampling.sample import Studio, equip, settings_from
    from latentart.studio.easel import Easel

    placement = Placement(choose_device(device), place.config.precision)

    def settings_of(changes: Mapping[str, Any]) -> SamplerSettings:
        return settings_from(place.config, {"guidance": place.config.guidance, **changes})

    def load() -> Studio:
        return equip(load_model(place.model, placement), place.model, settings_of({"steps": 1}), placement)[0]

    return Easel(place.model, place.samples, load, settings_of, place.model if place.is_named else None)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(host: str, port: int, token: str | None) -> str:
    """Return the link to open; for all addresses of this machine, by the one that others know it by."""
    if token is not None and host in ("0.0.0.0", "::"):  # noqa: S104 - asked for, and behind a token
        host = own_address()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def own_address() -> str:
    """Return this machine's address in its network; nothing is sent to find out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
