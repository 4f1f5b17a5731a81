"""The page in chromium, with the real onnxruntime-web: LATENTART_ORT_WEB names the folder of an unpacked one."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_models import UNET, make_model

from latentart.data.pictures.marks import SOURCE
from latentart.export.web import CDN, export_web

RUNTIME = Path(os.environ.get("LATENTART_ORT_WEB", ""))
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif("LATENTART_ORT_WEB" not in os.environ, reason="no LATENTART_ORT_WEB"),
]
PATIENCE = 120
HOSTILE = ["<img src=x onerror=alert(1)>", "constructor", "Ukiyo_e"]
DRAWN = "return document.getElementById('frame').dataset.drawn"
PROBLEM = "return document.getElementById('problem').textContent"


class Quiet(SimpleHTTPRequestHandler):
    """A plain web host that other pages may read from, as a CDN is."""

    def end_headers(self) -> None:
        """Let every page read."""
        self.send_header("access-control-allow-origin", "*")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serve folders, each as a host of its own."""
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path) -> str:
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open a page in a new browser of a width, whose downloads go to ``downloads``."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    drivers: list[Any] = []

    def open_page(address: str, width: int = 1280) -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for word in ("--headless=new", "--no-sandbox", "--disable-gpu"):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})  # type: ignore[no-untyped-call]
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        drivers.append(driver)
        where = {"behavior": "allow", "downloadPath": str(tmp_path / "downloads")}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
        metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(address)
        return driver

    yield open_page
    for driver in drivers:
        driver.quit()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model whose styles have the names that pages fear."""
    return make_model(tmp_path_factory.mktemp("web") / "model", UNET, "kl", "v", HOSTILE)


def wait_for(find: Callable[[], Any], what: str) -> Any:
    """Return what is found once it is there."""
    end = time.monotonic() + PATIENCE
    while not (found := find()):
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("width", [1280, 390])
def test_what_a_visitor_keeps_is_what_sample_draws(
    model: Path,
    tmp_path: Path,
    run: Callable[..., Any],
    serve: Callable[..., str],
    browse: Callable[..., Any],
    width: int,
) -> None:
    """To a gray level, at a place between seeds and of a blend; names are text, nothing else is asked, all fits."""
    export_web(model, tmp_path / "page", runtime=RUNTIME)
    driver = browse(address := serve(tmp_path / "page"), width)
    first = wait_for(lambda: driver.execute_script(DRAWN), "a picture")
    driver.execute_script(
        "document.querySelectorAll('.style button')[1].click();"
        "const one = document.querySelectorAll('.style input')[0]; one.value = 50; one.oninput(); one.onchange();"
    )
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).drag_and_drop_by_offset(driver.find_element("id", "plane"), 30, 40).perform()
    wait_for(lambda: driver.execute_script(DRAWN) not in ("", first), "another place")
    shares = driver.execute_script(
        "return [...document.querySelectorAll('.style output')].map((one) => one.textContent)"
    )
    assert shares == ["33 %", "67 %", ""]
    assert driver.execute_script("return document.querySelector('.style button').textContent") == HOSTILE[0]
    driver.find_element("id", "keep").click()
    (kept,) = wait_for(lambda: [*(tmp_path / "downloads").glob("*.png")], "a download")

    again = run(tmp_path, "sample", "--from", kept, "--out", "again", "--model", model)
    assert again.code == 0, again.err
    pixels, ours = (Image.open(path).convert("RGB").tobytes() for path in (kept, next((tmp_path / "again").iterdir())))
    assert max(abs(a - b) for a, b in zip(pixels, ours, strict=True)) <= 1
    with Image.open(kept) as picture:
        assert SOURCE in picture.info["XML:com.adobe.xmp"]
    asked = driver.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert [one for one in asked if not one.startswith((address, "data:", "blob:"))] == []
    wide = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1] == width
    assert [one for one in driver.get_log("browser") if "No available adapters" not in one["message"]] == []


def replace_in(page: Path, old: str, new: str) -> None:
    """Write other words into the page and what it reads."""
    for name in ("index.html", "model.json"):
        text = (page / name).read_text(encoding="utf-8")
        assert old in text
        (page / name).write_text(text.replace(old, new), encoding="utf-8")


def test_a_runtime_from_elsewhere_is_taken_by_its_hash_alone(
    model: Path, tmp_path: Path, serve: Callable[..., str], browse: Callable[..., Any]
) -> None:
    """It draws with the files that the hashes are of; with others, or from a place out of the policy, it does not."""
    page = export_web(model, tmp_path / "page").folder
    dist = shutil.copytree(RUNTIME / "dist", tmp_path / "cdn", ignore=shutil.ignore_patterns("*.map"))
    replace_in(page, CDN, serve(dist))
    address = serve(page)
    driver = browse(address)
    wait_for(lambda: driver.execute_script(DRAWN), "a picture")

    binary = dist / "ort-wasm-simd-threaded.wasm"
    binary.write_bytes(binary.read_bytes() + b"\0")
    driver = browse(address)
    assert wait_for(lambda: driver.execute_script(PROBLEM), "a refusal")
    assert not driver.execute_script(DRAWN)


def test_the_policy_binds_the_worker_too(
    model: Path, tmp_path: Path, serve: Callable[..., str], browse: Callable[..., Any]
) -> None:
    """With the runtime beside the page not even the worker can ask another host."""
    page = export_web(model, tmp_path / "page", runtime=RUNTIME).folder
    text = (page / "model.json").read_text(encoding="utf-8")
    elsewhere = serve(page)
    (page / "model.json").write_text(
        text.replace('"ort.wasm.wasm.gz"', f'"{elsewhere}ort.wasm.wasm.gz"'), encoding="utf-8"
    )
    driver = browse(serve(page))

    assert wait_for(lambda: driver.execute_script(PROBLEM), "a refusal")
    assert any("Content Security Policy" in one["message"] for one in driver.get_log("browser"))
