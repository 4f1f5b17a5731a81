"""The page in chromium: every tab on a desk and a phone, in the light and in the dark, by pointer and by keyboard."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

PATIENCE = 60
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
TABS = {"draw": ".style", "watch": ".run svg", "pictures": ".sheet img.there"}
RESTS = (
    "const frame = document.getElementById('frame');"
    "const drawn = frame.dataset.drawn ?? 'coarse';"
    "return !frame.classList.contains('busy') && drawn !== 'coarse' && drawn"
)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, story: Any) -> Iterator[tuple[str, Path]]:
    """Start the command on a workspace; yield its address and folder, then end it by Ctrl-C, which it does at once."""
    folder = Path(shutil.copytree(story.folder, tmp_path_factory.mktemp("studio") / "art"))
    words = [sys.executable, "-m", "latentart", "studio", "--no-open", "--port", "0"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip(), folder
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert time.monotonic() - began < 5
    assert "Traceback" not in err


@pytest.fixture
def browse() -> Iterator[Callable[..., Any]]:
    """Open a page in a new browser of a size, in the light or in the dark."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    drivers: list[Any] = []

    def open_page(address: str, size: tuple[int, int] = SIZES["desk"], scheme: str = "light") -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for word in ("--headless=new", "--no-sandbox", "--disable-gpu"):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})  # type: ignore[no-untyped-call]
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        drivers.append(driver)
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        driver.get(address)
        return driver

    yield open_page
    for driver in drivers:
        driver.quit()


def wait_for(driver: Any, script: str) -> Any:
    """Return what a script returns once that is true."""
    end = time.monotonic() + PATIENCE
    while not (found := driver.execute_script(script)):
        assert time.monotonic() < end, f"never came: {script}"
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_every_tab_is_sound(
    studio: tuple[str, Path], browse: Callable[..., Any], size: tuple[int, int], scheme: str
) -> None:
    """No error on the console, no request elsewhere, nothing wider than the screen or under the bar."""
    driver = browse(studio[0], size, scheme)
    for tab, sign in TABS.items():
        driver.execute_script(f"location.hash = '#{tab}'")
        wait_for(driver, f"return !!document.querySelector('#{tab} {sign}')")
        if tab == "draw":
            wait_for(driver, RESTS)
        wide = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1] == size[0], tab
        assert driver.execute_script("return scrollY") == 0, f"the bar hides the top of {tab}"
    requests = driver.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert requests
    assert [one for one in requests if not one.startswith((studio[0], "data:", "blob:"))] == []
    ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(ground) > 3 * 128) == (scheme == "light")
    assert driver.get_log("browser") == []


def test_the_keyboard_alone_draws_and_keeps(
    studio: tuple[str, Path], browse: Callable[..., Any], run: Callable[..., Any], tmp_path: Path
) -> None:
    """Tab reaches every control; arrows move on the plane, K keeps; what is kept opens again and --from repeats it."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    address, folder = studio
    driver = browse(address)
    first = wait_for(driver, RESTS)

    def press(*keys: str) -> None:
        ActionChains(driver).send_keys(*keys).perform()

    def focused() -> str:
        return str(driver.execute_script("return document.activeElement.id || document.activeElement.dataset.view"))

    for _ in range(30):
        press(Keys.TAB)
        if focused() == "plane":
            break
    assert focused() == "plane"
    press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    moved = wait_for(driver, f"const d = (() => {{ {RESTS} }})(); return d !== {first!r} && d")
    press("k")
    wait_for(driver, "return document.querySelectorAll('.card').length > 1")
    (path,) = [one for one in (folder / "samples").rglob("*.png") if "5008.125-6008.125-0.125" in one.name]
    assert moved == "[5008.125,6008.125,0.125]"
    again = run(folder, "sample", "--from", path, "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert next((tmp_path / "again").iterdir()).read_bytes() == path.read_bytes()

    press(Keys.SHIFT + Keys.ARROW_RIGHT + Keys.NULL)
    wait_for(driver, f"const d = (() => {{ {RESTS} }})(); return d && d !== {moved!r}")
    driver.execute_script("document.querySelector('.card button').focus()")
    press(Keys.ENTER)
    wait_for(driver, f"const d = (() => {{ {RESTS} }})(); return d === {moved!r}")
    assert driver.get_log("browser") == []


def test_a_kept_picture_opens_with_its_sliders_on_a_phone(studio: tuple[str, Path], browse: Callable[..., Any]) -> None:
    """By keyboard alone: two styles are blended, the picture kept, all changed, and the kept one opened again."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver = browse(studio[0], SIZES["phone"])
    first = wait_for(driver, RESTS)
    shares = "return [...document.querySelectorAll('.style output, #how output')].map((one) => one.textContent)"
    pixels = "return document.getElementById('picture').src"
    command = "return document.getElementById('command').textContent"

    def press(*keys: str) -> None:
        ActionChains(driver).send_keys(*keys).perform()

    driver.execute_script("document.querySelectorAll('.style input')[1].focus()")
    press(*[Keys.ARROW_RIGHT] * 3)
    wait_for(driver, f"const text = (() => {{ {command} }})(); return text.includes('+') && text")
    wait_for(driver, RESTS)
    blended, drawn = driver.execute_script(shares), driver.execute_script(pixels)
    driver.execute_script("document.getElementById('plane').focus()")
    press("k")
    wait_for(driver, "return document.querySelector('.card.new')")
    press("r")
    wait_for(driver, f"const d = (() => {{ {RESTS} }})(); return d && d !== {first!r}")
    driver.execute_script("document.querySelectorAll('.style button')[2].focus()")
    press(Keys.ENTER)
    wait_for(driver, f"const text = (() => {{ {command} }})(); return !text.includes('+')")
    assert driver.execute_script(shares) != blended
    driver.execute_script("document.querySelector('.card button').focus()")
    press(Keys.ENTER)
    wait_for(driver, f"const d = (() => {{ {RESTS} }})(); return d === {first!r}")

    assert blended[:3] == ["97 %", "3 %", ""]
    assert driver.execute_script(shares) == blended
    assert driver.execute_script(pixels) == drawn
    assert driver.get_log("browser") == []


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_nearest_training_pictures_are_shown(
    studio: tuple[str, Path], browse: Callable[..., Any], size: tuple[int, int]
) -> None:
    """N shows them, Enter looks at one, Escape goes back to where it was."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver = browse(studio[0], size)
    wait_for(driver, RESTS)
    driver.execute_script("document.getElementById('plane').focus()")
    ActionChains(driver).send_keys("n").perform()
    seen = "[...document.querySelectorAll('#nearest img')].filter((one) => one.naturalWidth).length === 8"
    wait_for(driver, f"return {seen}")
    driver.execute_script("document.querySelector('#nearest button').focus()")
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    wait_for(driver, "const [image, text] = look.children; return look.open && image.naturalWidth && text.textContent")
    wide = driver.execute_script("return [document.documentElement.scrollWidth, look.getBoundingClientRect().right]")
    assert max(wide) <= size[0]
    ActionChains(driver).send_keys(Keys.ESCAPE).perform()
    wait_for(driver, "return !look.open")

    assert driver.execute_script("return document.activeElement.closest('#nearest') !== null")
    height, overlap = driver.execute_script(
        "document.getElementById('status').textContent = 'Kept as samples/' + '4007.28125-'.repeat(12);"
        "scrollTo(0, document.body.scrollHeight);"
        "const box = (one) => document.querySelector(one).getBoundingClientRect();"
        "return [box('#keep').height, box('.command').bottom - box('.kept').top]"
    )
    assert height <= 42
    assert overlap <= 0
    assert driver.get_log("browser") == []


def test_more_kept_pictures_come_as_they_are_scrolled_to(
    cleaned: Path, story: Any, serve: Callable[[Path], Any], browse: Callable[..., Any]
) -> None:
    """A hundred and fifty of them, without a model."""
    (cleaned / "samples").mkdir()
    source = next((story.folder / "samples").glob("*.png"))
    for number in range(150):
        shutil.copy(source, cleaned / f"samples/{number}.png")
    driver = browse(f"http://{serve(cleaned).host}", SIZES["phone"])
    count = "document.querySelectorAll('.card').length"
    wait_for(driver, f"return {count} >= 60")
    assert driver.execute_script(f"return {count}") < 150
    wait_for(driver, f"scrollTo(0, document.body.scrollHeight); return {count} === 150")


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_what_is_not_there_is_a_sentence_on_every_tab(
    workspace: Path, serve: Callable[[Path], Any], browse: Callable[..., Any], size: tuple[int, int]
) -> None:
    """No runs and no pictures, a damaged model, a model folder alone: said on the page, and nothing else is offered."""
    weights = workspace / "runs/ldm/model/denoiser.safetensors"
    alone = Path(shutil.copytree(weights.parent, workspace.parent / "alone"))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    driver = browse(f"http://{serve(workspace).host}", size)
    problem = "return document.getElementById('problem').innerText"
    assert "denoiser.safetensors" in wait_for(driver, problem)
    assert_nothing_is_offered(driver, size)

    wait_for(driver, "document.querySelector('.card button')?.click(); return document.getElementById('picture').src")
    assert "sample --from" in driver.execute_script("return document.getElementById('command').innerText")

    for name in ("runs", "data", "cache", "samples"):
        shutil.rmtree(workspace / name)
    driver.get(f"http://{serve(workspace).host}")
    assert "latentart train" in wait_for(driver, problem)
    assert_nothing_is_offered(driver, size)
    for tab, word in (("watch", "latentart train vae"), ("pictures", "latentart clean-data")):
        driver.execute_script(f"location.hash = '#{tab}'")
        shown = f"const one = document.querySelector('#{tab} .empty'); return one && !one.hidden && one.innerText"
        assert word in wait_for(driver, shown)
        assert_nothing_is_offered(driver, size, tab)

    driver.get(f"http://{serve(alone).host}")
    wait_for(driver, RESTS)
    assert driver.execute_script("return document.querySelectorAll('.tabs a:not([hidden])').length") == 1
    errors = [one for one in driver.get_log("browser") if "400 (Bad Request)" not in one["message"]]
    assert errors == []


def assert_nothing_is_offered(driver: Any, size: tuple[int, int], tab: str = "draw") -> None:
    """Assert that no control of a tab can be used, and that nothing is wider than the screen."""
    controls = f"#{tab} :not(.card) > :is(button, input, select):not(:disabled, #copy)"
    offered = f"return [...document.querySelectorAll('{controls}')].filter((one) => one.checkVisibility())"
    assert driver.execute_script(f"{offered}.map((one) => one.id)") == []
    assert driver.execute_script("return document.documentElement.scrollWidth") <= size[0]


def test_a_drag_draws_coarsely_on_the_way_and_finely_at_its_end(
    studio: tuple[str, Path], browse: Callable[..., Any]
) -> None:
    """The picture follows the pointer."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    driver = browse(studio[0])
    before = wait_for(driver, RESTS)
    plane = driver.find_element(By.ID, "plane")
    drag = ActionChains(driver, duration=60).move_to_element(plane).click_and_hold()
    for _ in range(10):
        drag.move_by_offset(6, 3)
    drag.perform()
    wait_for(driver, "return document.getElementById('frame').dataset.drawn === 'coarse'")
    ActionChains(driver).release().perform()
    after = wait_for(driver, RESTS)

    assert after != before
    assert driver.get_log("browser") == []


def test_a_look_again_keeps_the_focus(studio: tuple[str, Path], browse: Callable[..., Any]) -> None:
    """Who holds the slider over time by keyboard still does after the runs were asked for again."""
    driver = browse(f"{studio[0]}#watch")
    wait_for(driver, "return [...document.querySelectorAll('.run summary')].at(-1)?.focus() === undefined")
    asked = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/api/watch')).length"
    before = driver.execute_script(f"return {asked}")
    wait_for(driver, f"return {asked} > {before + 1}")

    assert driver.execute_script("return document.activeElement.matches('.run summary')")


def test_hostile_names_are_text(studio: tuple[str, Path], browse: Callable[..., Any]) -> None:
    """A run or a picture of any name adds no element to the page."""
    address, folder = studio
    run = folder / "runs" / "<img src=x onerror=alert(1)>"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n')
    driver = browse(f"{address}#watch")

    wait_for(
        driver, "return [...document.querySelectorAll('.run h2')].some((one) => one.textContent.includes('onerror'))"
    )
    assert driver.execute_script("return document.querySelectorAll('.run h2 img').length") == 0
    shutil.rmtree(run)
