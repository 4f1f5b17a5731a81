"""Downloads over real sockets: they go on where they stopped, and only the right file ever appears."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from latentart.errors import DownloadError, LatentArtError, ResourceError, UsageError
from latentart.storage.download import bytes_received, fetch_file, find_fault, part_of

CONTENT = bytes(i * i % 251 for i in range(900_000))
OTHER = CONTENT[::-1]
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PROXIES = [name for word in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (word, word.upper())]


@dataclass
class Site:
    """A site with one file; ``asked`` are the requests (path, Range), ``cuts`` the bytes each response ends after."""

    address: str = ""
    body: bytes = CONTENT
    has_ranges: bool = True
    has_length: bool = True
    shift: int = 0
    statuses: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    stalls_after: int | None = None
    go_on: Event = field(default_factory=Event)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    agents: set[str | None] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Address of the file."""
        return f"{self.address}/models/file.pth"

    @property
    def ranges(self) -> list[str | None]:
        """What part each request asked for."""
        return [one for _, one in self.asked]


class Answer(BaseHTTPRequestHandler):
    """One response of a site."""

    def __init__(self, site: Site, *arguments: Any) -> None:
        self.site = site
        super().__init__(*arguments)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Send the file, or the asked part of it, as the site does it."""
        site, asked = self.site, self.headers["Range"]
        site.asked.append((self.path, asked))
        site.agents.add(self.headers["User-Agent"])
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and site.has_ranges else 0
        if site.statuses and (status := site.statuses.pop(0)) != 200:
            self.send_error(status)
            return
        if first >= len(site.body):
            self.send_error(416)
            return
        body = site.body[first:]
        self.send_response(206 if first else 200)
        if first:
            last = len(site.body) - 1
            self.send_header("Content-Range", f"bytes {first + site.shift}-{last}/{len(site.body)}")
        if site.has_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # the other side may have seen enough
            self.wfile.write(body[: site.cuts.pop(0)] if site.cuts else body[: site.stalls_after])
        if site.stalls_after is not None:
            site.go_on.wait(20)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site on this machine, asked without a proxy."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    site = Site()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Answer, site)) as server:
        thread = Thread(target=partial(server.serve_forever, 0.01))
        thread.start()
        site.address = f"http://127.0.0.1:{server.server_port}"
        yield site
        site.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the file shall lie, in a folder that is not there yet."""
    return tmp_path / "hub" / "file.pth"


def fetch(url: str, target: Path, **others: Any) -> None:
    """Fetch the file; a lost connection is tried again three times, without delay."""
    fetch_file(url, target, **({"num_bytes": len(CONTENT), "sha256": SHA256, "pauses": (0, 0, 0)} | others))


def begin(target: Path, content: bytes) -> None:
    """Leave a part that an earlier download received."""
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(content)


def refuse(kind: type[LatentArtError], url: str, target: Path, **others: Any) -> str:
    """Fetch, expect an error and an empty place, and return the error's line."""
    with pytest.raises(kind) as caught:
        fetch(url, target, **others)
    assert not target.exists()
    return str(caught.value)


def files_beside(target: Path) -> list[str]:
    """Return the names of all files where the target lies."""
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_arrives_whole_and_alone(site: Site, target: Path) -> None:
    """The folder is made, nothing is left beside the file, and progress ends at its size."""
    seen: list[int] = []

    fetch(site.url, target, on_progress=seen.append)

    assert target.read_bytes() == CONTENT
    assert files_beside(target) == ["file.pth"]
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, len(CONTENT))
    assert site.asked == [("/models/file.pth", None)]
    assert re.fullmatch(r"latentart/\S+", site.agents.pop() or "")


def test_it_goes_on_with_what_is_there(site: Site, target: Path) -> None:
    """Only the rest is asked for."""
    begin(target, CONTENT[:700_001])
    seen: list[int] = []

    fetch(site.url, target, on_progress=seen.append)

    assert target.read_bytes() == CONTENT
    assert site.ranges == ["bytes=700001-"]
    assert seen[0] == 700_001


def test_a_site_without_ranges_is_read_from_the_beginning(site: Site, target: Path) -> None:
    """The whole takes the place of the part."""
    begin(target, CONTENT[:1000])
    site.has_ranges = False

    fetch(site.url, target)

    assert target.read_bytes() == CONTENT
    assert site.ranges == ["bytes=1000-"]


def test_lost_connections_are_taken_up_where_they_broke(site: Site, target: Path) -> None:
    """Each response is cut; the next one goes on."""
    site.cuts = [300_000, 0, 300_000]

    fetch(site.url, target)

    assert target.read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=300000-", "bytes=300000-", "bytes=600000-"]


def test_too_many_lost_connections_end_it_and_the_next_run_goes_on(site: Site, target: Path) -> None:
    """The line says to run it again, and what was received is kept."""
    site.cuts = [100_000] * 4

    line = refuse(DownloadError, site.url, target)

    assert "the connection was lost; 400000 of 900000 bytes are here. Run the same command again to go on" in line
    assert bytes_received(target) == 400_000
    fetch(site.url, target)
    assert target.read_bytes() == CONTENT
    assert site.ranges[4:] == ["bytes=400000-"]


def test_pauses_grow_between_the_tries(site: Site, target: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each is said and kept."""
    site.statuses = [503, 503]
    began = time.monotonic()

    fetch(site.url, target, pauses=(0.05, 0.15))

    assert time.monotonic() - began > 0.2
    assert [record.getMessage() for record in caplog.records] == [
        f"HTTP 503 Service Unavailable; trying again in {pause} s" for pause in (0.05, 0.15)
    ]


@pytest.mark.parametrize("setting", [{"statuses": [416]}, {"shift": 7}, {"shift": -7}])
def test_a_part_that_does_not_fit_the_site_is_given_up(site: Site, target: Path, setting: dict[str, Any]) -> None:
    """Refused range or the answer to another one: from the beginning."""
    begin(target, CONTENT[:1000])
    for name, value in setting.items():
        setattr(site, name, value)

    fetch(site.url, target)

    assert target.read_bytes() == CONTENT
    assert site.ranges == ["bytes=1000-", None]


@pytest.mark.parametrize("size", [1000, len(CONTENT)])
def test_a_part_of_another_file_is_given_up(site: Site, target: Path, size: int) -> None:
    """The file has changed between two runs: its hash tells, and it is read from the beginning."""
    begin(target, OTHER[:size])

    fetch(site.url, target)

    assert target.read_bytes() == CONTENT
    assert site.ranges[-1] is None


def test_a_whole_part_is_not_asked_for_again(site: Site, target: Path) -> None:
    """The earlier run ended between the last byte and the rename."""
    begin(target, CONTENT)

    fetch(site.url, target)

    assert target.read_bytes() == CONTENT
    assert site.asked == []


def test_a_part_longer_than_the_file_is_given_up(site: Site, target: Path) -> None:
    """It can be nothing of ours."""
    begin(target, CONTENT + b"!")

    fetch(site.url, target)

    assert target.read_bytes() == CONTENT
    assert site.ranges == [None]


@pytest.mark.parametrize("has_part", [False, True])
def test_a_wrong_file_is_deleted_and_said(site: Site, target: Path, has_part: bool) -> None:
    """The size is right and the hash is not."""
    site.body = OTHER
    if has_part:
        begin(target, OTHER[:1000])

    line = refuse(DownloadError, site.url, target)

    assert "its checksum (SHA-256) does not match; it was deleted." in line
    assert files_beside(target) == []
    assert site.ranges == (["bytes=1000-", None] if has_part else [None])


@pytest.mark.parametrize("body", [b"<html>please log in</html>", CONTENT + b"!"])
@pytest.mark.parametrize("has_ranges", [False, True])
def test_a_file_of_another_size_costs_nothing(site: Site, target: Path, body: bytes, has_ranges: bool) -> None:
    """A page in place of the file: what an earlier run received stays as it is."""
    begin(target, CONTENT[:20])
    site.body, site.has_ranges = body, has_ranges

    line = refuse(DownloadError, site.url, target)

    assert f"there is another file, with {len(body)} bytes instead of 900000" in line
    assert part_of(target).read_bytes() == CONTENT[:20]
    assert len(site.asked) == 1


def test_a_file_that_does_not_end_is_cut_off(site: Site, target: Path) -> None:
    """A site that names no size sends too much: that is another file, and not read to its end."""
    site.body, site.has_length = CONTENT * 2, False
    seen: list[int] = []

    line = refuse(DownloadError, site.url, target, on_progress=seen.append)

    size = int(re.findall(r"what came has (\d+) bytes, expected 900000", line)[0])
    assert len(CONTENT) < size < len(CONTENT) + 2**18
    assert seen[-1] == len(CONTENT)
    assert files_beside(target) == []


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (429, 4), (500, 4), (503, 4)])
def test_only_a_refusal_that_may_pass_is_tried_again(site: Site, target: Path, status: int, tries: int) -> None:
    """A file that is not there will not come; a busy site may answer later."""
    site.statuses = [status] * 9

    line = refuse(DownloadError, site.url, target)

    assert f"{site.url}: HTTP {status} " in line
    assert ("Run the same command again" in line) == (tries > 1)
    assert len(site.asked) == tries
    assert files_beside(target) == []


def test_silence_is_a_lost_connection(site: Site, target: Path) -> None:
    """Nothing waits for ever."""
    site.stalls_after = 300_000
    began = time.monotonic()

    line = refuse(DownloadError, site.url, target, timeout=0.2, pauses=())

    assert "timed out" in line
    assert time.monotonic() - began < 5
    assert 0 < bytes_received(target) <= 300_000


def test_nobody_there_is_one_line_and_leaves_nothing(site: Site, target: Path) -> None:
    """A closed port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port

    assert "Connection refused. Run the same command again" in refuse(
        DownloadError, f"http://127.0.0.1:{port}/file.pth", target
    )
    assert files_beside(target) == []


@pytest.mark.parametrize("url", ["http://[::1/file.pth", "http://127.0.0.1:port/file.pth", "http:///file.pth"])
def test_an_impossible_address_is_not_tried_again(site: Site, target: Path, url: str) -> None:
    """One line, and it names the address."""
    assert f"{url}: " in (line := refuse(DownloadError, url, target))
    assert "Check the address" in line


@pytest.mark.parametrize("url", ["file.pth", "ftp://127.0.0.1/file.pth", "data:,x", ""])
def test_other_kinds_of_address_are_a_slip(target: Path, url: str) -> None:
    """They are refused before anything is made."""
    assert f"'{url}' is no address to fetch from." in refuse(UsageError, url, target)
    assert not target.parent.exists()


def test_a_file_may_be_a_source(tmp_path: Path, target: Path) -> None:
    """A mounted folder is a mirror too; one without the file is no reason to wait."""
    begin(target, CONTENT[:1000])
    assert "No such file" in (line := refuse(DownloadError, (tmp_path / "source.pth").as_uri(), target, pauses=(9,)))
    assert "Check the address" in line
    (tmp_path / "source.pth").write_bytes(CONTENT)

    fetch((tmp_path / "source.pth").as_uri(), target)

    assert target.read_bytes() == CONTENT


def test_a_proxy_is_asked_where_the_environment_names_one(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy gets the whole address; no_proxy leaves a host out."""
    monkeypatch.setenv("http_proxy", site.address)

    fetch("http://nowhere.invalid/file.pth", target)

    assert target.read_bytes() == CONTENT
    assert [path for path, _ in site.asked] == ["http://nowhere.invalid/file.pth"]
    target.unlink()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fetch(site.url, target)
    assert target.read_bytes() == CONTENT


def test_a_right_file_is_not_fetched_and_a_wrong_one_is_replaced(site: Site, target: Path) -> None:
    """What lies there is looked at, not believed."""
    target.parent.mkdir()
    target.write_bytes(OTHER)
    fetch(site.url, target)
    assert (target.read_bytes(), len(site.asked)) == (CONTENT, 1)

    fetch(site.url, target)

    assert len(site.asked) == 1
    assert files_beside(target) == ["file.pth"]


FETCH = """
import sys
from pathlib import Path
from latentart.storage.download import fetch_file
fetch_file(sys.argv[1], Path(sys.argv[2]), num_bytes=int(sys.argv[3]), sha256=sys.argv[4])
"""


def wait_for(is_true: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_two_processes_do_not_write_one_part_and_a_killed_one_blocks_nobody(site: Site, target: Path) -> None:
    """The second is refused in one line; once the first is killed, another goes on with what it received."""
    site.stalls_after = 600_000
    first = subprocess.Popen([sys.executable, "-c", FETCH, site.url, str(target), str(len(CONTENT)), SHA256])
    try:
        wait_for(lambda: bytes_received(target) > 0)
        line = refuse(ResourceError, site.url, target)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert line == f"another process is fetching {target}. Wait until it is done, then run the same command again."
    assert len(site.asked) == 1
    received, site.stalls_after = bytes_received(target), None

    fetch(site.url, target)

    assert target.read_bytes() == CONTENT
    assert site.ranges == [None, f"bytes={received}-"]


def test_a_disk_without_room_is_said_before_anything_is_asked(site: Site, target: Path) -> None:
    """How much there is and how much is needed; what is there already counts."""
    begin(target, CONTENT)

    line = refuse(ResourceError, site.url, target, num_bytes=2**60)

    assert re.search(r"hub has \d+ MB free, and file\.pth needs 1099511627775 MB more\.", line)
    assert site.asked == []
    assert bytes_received(target) == len(CONTENT)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_fills_up_is_one_line(site: Site, target: Path) -> None:
    """It is the disk's fault and not the network's: no other try."""
    target.parent.mkdir()
    part_of(target).symlink_to("/dev/full")

    assert f"{target}: No space left on device. Make room" in refuse(ResourceError, site.url, target)
    assert len(site.asked) == 1


def test_a_folder_that_cannot_be_made_is_one_line(site: Site, tmp_path: Path) -> None:
    """A file stands where the cache should be."""
    (tmp_path / "hub").touch()

    with pytest.raises(ResourceError, match=r"hub/file\.pth: (File exists|Not a directory)\."):
        fetch(site.url, tmp_path / "hub" / "file.pth")


def test_faults_are_named(tmp_path: Path) -> None:
    """Missing, cut, changed in one bit, right."""
    path = tmp_path / "file.pth"

    assert find_fault(path, len(CONTENT), SHA256) == "is missing"
    path.write_bytes(CONTENT[:-1])
    assert find_fault(path, len(CONTENT), SHA256).startswith("has 899999 bytes, expected 900000: it is cut")
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    assert "its checksum (SHA-256) does not match" in find_fault(path, len(CONTENT), SHA256)
    path.write_bytes(CONTENT)
    assert find_fault(path, len(CONTENT), SHA256) == ""
