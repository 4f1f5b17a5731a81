"""What `sample` draws, where it puts it, and that nothing is ever overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from latentart.cli.sampling import sample
from latentart.config.sample import SampleConfig
from latentart.core.diffusion.samplers import ADVANCE
from latentart.data.pictures.grids import tile_grid
from latentart.errors import UsageError
from latentart.kinds import Sampler, Spacing
from latentart.model.generate import SamplerSettings
from latentart.sampling.blends import Blend
from latentart.sampling.files import make_grid, require_free
from latentart.sampling.request import Cell, SamplePlan, SampleRequest, choose_cells
from latentart.sampling.sample import settings_from
from latentart.storage.folders import free_path

Run = Callable[..., Any]
SIDE, GAP = 32, 2
CHANGED = {"steps": 3, "precision": "fp32", "guidance_interval": [0, 0.6], "guidance_rescale": 0.7}


def cell(path: Path, row: int = 0, column: int = 0, margin: int = 0) -> torch.Tensor:
    """Return the values [32, 32, 3] of one picture in an unlabelled grid, or of a single picture."""
    with Image.open(path) as grid:
        if grid.size != (SIDE, SIDE):
            left, top = margin + GAP + column * (SIDE + GAP), GAP + row * (SIDE + GAP)
            grid = grid.crop((left, top, left + SIDE, top + SIDE))
        return torch.frombuffer(bytearray(grid.convert("RGB").tobytes()), dtype=torch.uint8).view(SIDE, SIDE, 3).int()


def settings_of(path: Path) -> Any:
    """Return the settings inside a picture."""
    with Image.open(path) as picture:
        return json.loads(picture.info["latentart"])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--eta", "0.8"],
        ["--sampler", "ddpm"],
        ["--sampler", "heun"],
        ["--sampler", "unipc", "--steps", "5", "--interval", "0.3", "0.7"],
    ],
)
def test_a_picture_does_not_depend_on_its_batch(run: Run, workspace: Path, words: list[str]) -> None:
    """The same style and seed, alone and inside a grid: equal within one gray level, whatever way they are drawn."""
    run(workspace, "sample", "-s", "Cubism", "--grid", "2x3", *words, "--out", "grid.png")
    run(workspace, "sample", "-s", "Cubism", "--grid", "1x1", "--seed", "4", *words, "--out", "alone.png")

    alone, within = cell(workspace / "alone.png"), cell(workspace / "grid.png", 1, 1)

    torch.testing.assert_close(alone, within, atol=1, rtol=0)
    assert (cell(workspace / "grid.png", 0, 0) - within).abs().max() > 5


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "unipc"])
def test_a_sampler_names_its_pictures(run: Run, workspace: Path, sampler: str) -> None:
    """File and settings tell the sampler; an η that it does not take is remarked on, and changes nothing."""
    done = run(workspace, "sample", "-s", "Cubism", "-n", "1", "--sampler", sampler, "--eta", "0.5")
    run(workspace, "sample", "-s", "Cubism", "-n", "1", "--sampler", sampler, "--out", "without.png")
    run(workspace, "sample", "-s", "Cubism", "-n", "1", "--out", "ddim.png")

    path = workspace / done.out.strip()
    assert done.out == f"samples/Cubism_{sampler}_1x1.png\n"
    assert f"warning: --eta has no effect with the {sampler} sampler" in done.err
    assert settings_of(path)["sampler"] == sampler
    assert torch.equal(cell(path), cell(workspace / "without.png"))
    assert ((cell(path) - cell(workspace / "ddim.png")).abs().max() <= 1) == (sampler == "euler")


def test_guidance_can_be_limited_and_rescaled(run: Run, workspace: Path) -> None:
    """Interval and rescaling come from the config, the interval also from its option; both change the picture."""
    words = ("sample", "-s", "Cubism", "-n", "1", "--guidance", "4")
    plain = run(workspace, *words)
    whole = run(workspace, *words, "--interval", "0", "1")
    limited = run(workspace, *words, "--interval", "0.2", "0.6")
    never = run(workspace, *words, "--interval", "0.5", "0.5")
    unguided = run(workspace, *words[:-1], "1")
    path = workspace / "latentart.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sample": CHANGED}))
    changed = run(workspace, *words)

    pictures = [workspace / done.out.strip() for done in (plain, limited, never, unguided, changed)]
    assert "were there already" in whole.err
    assert [settings_of(one)["guidance_interval"] for one in pictures] == [
        [0, 1],
        [0.2, 0.6],
        [0.5, 0.5],
        [0, 1],
        [0, 0.6],
    ]
    assert [settings_of(one)["guidance_rescale"] for one in pictures] == [0, 0, 0, 0, 0.7]
    assert torch.equal(cell(pictures[2]), cell(pictures[3]))
    for one, other in pairwise(cell(pictures[i]) for i in (0, 1, 3, 4)):
        assert not torch.equal(one, other)


def test_config_command_and_core_know_the_same_samplers() -> None:
    """Neither names one that another lacks, and a config's defaults are those of Python."""
    fields = SampleConfig.model_fields
    option = get_args(get_args(get_type_hints(sample)["sampler"])[0])

    assert option == get_args(fields["sampler"].annotation) == get_args(Sampler) == tuple(ADVANCE)
    assert get_args(get_args(fields["spacing"].annotation)[0]) == get_args(Spacing)
    assert settings_from(SampleConfig(), {}) == SamplerSettings()


def test_the_fast_samplers_walk_evenly_in_log_snr_unless_told_otherwise() -> None:
    """The spacing follows the sampler that is used and its steps, not the config's; what the config says stays."""
    assert settings_from(SampleConfig(), {"sampler": "unipc"}).spacing == "log_snr"
    assert settings_from(SampleConfig(sampler="dpmpp_2m"), {}).spacing == "log_snr"
    assert settings_from(SampleConfig(sampler="dpmpp_2m"), {"sampler": "heun"}).spacing == "trailing"
    assert settings_from(SampleConfig(spacing="linspace"), {"sampler": "unipc"}).spacing == "linspace"
    assert settings_from(SampleConfig(), {"sampler": "unipc", "steps": 12}).spacing == "log_snr"
    assert settings_from(SampleConfig(), {"sampler": "unipc", "steps": 11}).spacing == "trailing"
    assert settings_from(SampleConfig(sampler="unipc", steps=8, spacing="log_snr"), {}).spacing == "log_snr"


def test_the_same_seed_gives_the_same_bytes(run: Run, workspace: Path) -> None:
    """Drawn twice into two files, they are one."""
    for name in ("one.png", "two.png"):
        run(workspace, "sample", "-s", "Cubism", "--grid", "1x2", "--eta", "1", "--out", name)

    assert (workspace / "one.png").read_bytes() == (workspace / "two.png").read_bytes()


def test_styles_and_seeds_make_different_pictures(run: Run, workspace: Path) -> None:
    """One row per style, each from the first seed on; the style changes the picture."""
    done = run(workspace, "sample", "-s", "Cubism", "-s", "minimalism", "--count", "2", "--seed", "7")
    path = workspace / done.out.strip()

    assert path == workspace / "samples/Cubism+Minimalism_eta0_2x2.png"
    assert settings_of(path)["styles"] == ["Cubism", "Cubism", "Minimalism", "Minimalism"]
    assert settings_of(path)["seeds"] == [7, 8, 7, 8]
    with Image.open(path) as grid:
        margin = grid.width - 2 * (SIDE + GAP) - GAP
    assert margin > 20, "rows of several styles are labelled"
    assert (cell(path, 0, 0, margin) - cell(path, 1, 0, margin)).abs().max() > 1


@pytest.mark.parametrize(
    ("count", "grid", "rows"),
    [
        (3, (4, 2), ["0 1", "2 3", "0 1", "0 1"]),
        (2, (5, 2), ["0 1", "2 3", "4 5", "0 1", "2 3"]),
        (2, (1, 5), ["0 1 2 0 1"]),
        (3, (2, 3), ["0 1 2", "0 1 0"]),
        (5, (2, 3), ["0 1 0", "0 0 0"]),
        (1, (2, 2), ["0 1", "2 3"]),
    ],
)
def test_a_row_of_a_grid_ends_where_a_style_does(count: int, grid: tuple[int, int], rows: list[str]) -> None:
    """No style is broken over two rows if it could be in one; each has a picture and begins at the first seed."""
    styles = [Blend(((str(i), 1.0),)) for i in range(count)]
    cells, columns = choose_cells(styles, SampleRequest(styles=(), grid=grid))

    found = [" ".join(f"{cell.seed}" for cell in cells[i : i + columns]) for i in range(0, len(cells), columns)]
    assert found == rows
    assert list(dict.fromkeys(cell.style for cell in cells)) == styles


def test_a_grid_says_what_is_in_it() -> None:
    """Rows of one style have labels, a blend's a line for each part; mixed rows have captions, one style nothing."""
    names = ["Northern_Renaissance", "High_Renaissance", "Cubism"]
    plain = [Blend(((name, 1.0),)) for name in names]
    blends = [Blend(((names[0], share), (names[1], 1 - share))) for share in (0.3, 0.7)]
    many = Blend(tuple((name, 0.2) for name in "abcde"))

    def grid_of(styles: list[Blend], columns: int) -> Image.Image:
        cells = tuple(Cell(style, 0) for style in styles)
        rows = len(cells) // columns
        plan = SamplePlan(cells=cells, rows=rows, columns=columns, kind="grid", size=(64, 64))
        return make_grid(plan, [Image.new("RGB", (64, 64))] * len(cells))

    labels = [
        "0.3 Northern_Renaissance\n0.7 High_Renaissance",
        "0.7 Northern_Renaissance\n0.3 High_Renaissance",
        "Cubism",
    ]
    labels.append("0.2 a\n0.2 b\n0.2 c\nand 2 more")
    tiles = [Image.new("RGB", (64, 64))] * 4
    rows = grid_of([*blends, plain[2], many], 1)
    mixed = grid_of([plain[2], plain[2], blends[0], plain[1]], 2)
    captions = ["Cubism", "", "0.3 Northern_Renaissance + 0.7 High_Renaissance", "High_Renaissance"]
    assert rows == tile_grid(tiles, 4, 1, labels)
    assert mixed == tile_grid(tiles, 2, 2, captions=captions)
    assert grid_of([blends[0]] * 4, 2) == tile_grid(tiles, 2, 2)


@pytest.mark.parametrize("words", [[], ["--model", "runs/ldm/model"]])
def test_settings_may_be_given_as_everywhere(run: Run, workspace: Path, words: list[str]) -> None:
    """`key=value` changes what the config says, an option what both say; one that is unknown is named."""
    given = ("sample", "-s", "Cubism", "-n", "1", "sample.steps=2", "sample.guidance=4", *words)

    assert run(workspace, *given, "--guidance", "3", "--out", "one.png").code == 0
    assert "sample.step" in run(workspace, *given, "sample.step=2").error(3)
    assert "'Cubism' is not a setting" in run(workspace, *given, "Cubism").error(2)
    assert [settings_of(workspace / "one.png")[name] for name in ("steps", "guidance")] == [2, 3]


def test_all_stands_for_every_style(run: Run, workspace: Path) -> None:
    """`--style all` has a row for each style of the model, four pictures long."""
    done = run(workspace, "sample", "--style", "all")

    assert done.out == "samples/all_eta0_3x4.png\n"
    assert settings_of(workspace / done.out.strip())["styles"][::4] == ["Cubism", "High_Renaissance", "Minimalism"]


def test_separate_pictures_go_into_a_folder(run: Run, workspace: Path) -> None:
    """Each has its own file and its own settings, and is the picture of the grid."""
    done = run(workspace, "sample", "-s", "Cubism", "--count", "2", "--separate", "--json")
    run(workspace, "sample", "-s", "Cubism", "--count", "2", "--out", "grid.png")

    paths = json.loads(done.out)["files"]
    assert paths == [f"samples/Cubism_eta0/Cubism_seed{seed}.png" for seed in (0, 1)]
    assert [settings_of(workspace / path)["seed"] for path in paths] == [0, 1]
    torch.testing.assert_close(cell(workspace / paths[1]), cell(workspace / "grid.png", 0, 1), atol=0, rtol=0)


def test_separate_pictures_cut_short_are_gone_on_with(run: Run, workspace: Path) -> None:
    """What is there stays as it is; what is missing, or newly asked for, is drawn."""
    run(workspace, "sample", "-s", "Cubism", "--count", "3", "--separate")
    folder = workspace / "samples/Cubism_eta0"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    kept = (folder / "Cubism_seed0.png").stat().st_mtime_ns
    (folder / "Cubism_seed1.png").unlink()

    done = run(workspace, "sample", "-s", "Cubism", "--count", "4", "--separate")

    assert done.code == 0
    assert (folder / "Cubism_seed0.png").stat().st_mtime_ns == kept
    assert {name: (folder / name).read_bytes() for name in whole} == whole
    assert len(list(folder.iterdir())) == 4


def test_separate_pictures_are_written_as_they_come(run: Run, workspace: Path) -> None:
    """Stopped amid the third batch, those of the first two are there; the same command adds the rest and no more."""
    path, folder = workspace / "latentart.json", workspace / "samples/Cubism_eta0"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "sample": {**config["sample"], "batch_size": 2}}))
    words = ("sample", "-s", "Cubism", "--count", "6", "--separate")

    def stop(*_: Any) -> None:
        if len(list(folder.glob("*.png"))) == 4:
            raise KeyboardInterrupt

    with register_module_forward_pre_hook(stop):
        assert run(workspace, *words).code == 130
    before = {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in folder.iterdir()}
    (folder / ".tmp-Cubism_seed4.png-999999999").write_text("half of it")  # what a killed one leaves
    (folder / ".tmp-mine-999999999").write_text("mine")
    assert run(workspace, *words).code == 0

    after = {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in folder.iterdir()}
    assert list(map(settings_of, sorted(folder.glob("*.png")))) == [
        {**settings_of(folder / "Cubism_seed0.png"), "seed": seed} for seed in range(6)
    ]
    assert sorted(before) == [f"Cubism_seed{seed}.png" for seed in range(4)]
    assert before.items() <= after.items()
    assert sorted(after.keys() - before.keys()) == [".tmp-mine-999999999", "Cubism_seed4.png", "Cubism_seed5.png"]


def test_out_names_the_file_or_the_folder(run: Run, workspace: Path) -> None:
    """`--out` takes the grid, or with `--separate` the pictures, into folders that need not be there."""
    grid = run(workspace, "sample", "-s", "Cubism", "--grid", "1x1", "--out", "deep/er/mine.png")
    single = run(workspace, "sample", "-s", "Cubism", "-n", "1", "--separate", "--out", "singles")

    assert grid.out == "deep/er/mine.png\n"
    assert single.out == "singles/Cubism_seed0.png\n"
    assert (workspace / "deep/er/mine.png").is_file()
    assert (workspace / "singles/Cubism_seed0.png").is_file()


@pytest.mark.parametrize("words", [["--grid", "1x2"], ["--count", "2", "--separate"]])
def test_other_settings_get_a_name_of_their_own(run: Run, workspace: Path, words: list[str]) -> None:
    """The name says the style and η only: what differs otherwise gets a number, and the first stays."""
    first = run(workspace, "sample", "-s", "Cubism", *words)
    before = {line: (workspace / line).read_bytes() for line in first.out.split()}
    second = run(workspace, "sample", "-s", "Cubism", *words, "--guidance", "3")
    again = run(workspace, "sample", "-s", "Cubism", *words, "--guidance", "3")

    assert [Path(line).stem for line in second.out.split()] == [f"{Path(line).stem}_2" for line in before]
    assert again.out == second.out
    assert "were there already" in again.err
    assert {line: (workspace / line).read_bytes() for line in before} == before


@pytest.mark.parametrize("words", [["--out", "mine.png"], ["--separate", "--out", "singles"]])
def test_nothing_is_overwritten(run: Run, workspace: Path, snapshot: Run, words: list[str]) -> None:
    """A file in the way of a name that the user gave: exit code 2, and every file as it was."""
    (workspace / "singles").mkdir()
    for name in ("mine.png", "singles/Cubism_seed1.png"):
        (workspace / name).write_text("a letter")
    before = snapshot(workspace)

    line = run(workspace, "sample", "-s", "Cubism", "--count", "2", *words).error(2)

    assert "exists and was made otherwise; nothing is overwritten" in line
    assert snapshot(workspace) == before


def test_a_broken_file_of_our_name_is_not_ours(run: Run, workspace: Path) -> None:
    """A PNG cut short, or something else of that name, stays; the new grid gets a number."""
    path = workspace / "samples/Cubism_eta0_1x1.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")

    done = run(workspace, "sample", "-s", "Cubism", "--grid", "1x1")

    assert done.out == "samples/Cubism_eta0_1x1_2.png\n"
    assert path.read_bytes() == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-s", "Cubsim"], "this model has no style 'Cubsim'. Did you mean 'Cubism'? Styles: Cubism, High_Renaissance"),
        (["-s", "Cubism", "--grid", "4"], "'4' is not a grid."),
        (["-s", "all", "--grid", "1x2"], "a grid of 1x2 has no room for 3 styles"),
        (["-s", "Cubism", "--interval", "0.8", "0.2"], "--interval 0.8 0.2 does not rise within 0 to 1"),
        (["-s", "Cubism", "--interval", "0", "1.5"], "--interval 0 1.5 does not rise within 0 to 1"),
        (["-s", "Cubism", "--steps", "2000"], "--steps 2000 is not within 1 to 1000"),
    ],
)
def test_what_cannot_be_drawn_is_said(run: Run, workspace: Path, snapshot: Run, words: list[str], message: str) -> None:
    """A slip in a style offers the nearest; nothing is written."""
    before = snapshot(workspace)

    line = run(workspace, "sample", *words).error(2)

    assert message in line
    assert snapshot(workspace) == before


@pytest.mark.parametrize("name", ["denoiser.safetensors", "autoencoder.safetensors", "model.json"])
def test_a_flipped_bit_in_a_model_is_refused(run: Run, workspace: Path, name: str) -> None:
    """The damaged file is named, with exit code 6; no picture is made of it."""
    path = workspace / "runs/ldm/model" / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)

    line = run(workspace, "sample", "-s", "Cubism", "--grid", "1x1").error(6)

    assert f"runs/ldm/model/{name}" in line
    assert not (workspace / "samples/Cubism_eta0_1x1.png").exists()


def test_a_link_that_leads_nowhere_is_not_taken_for_a_free_name(tmp_path: Path) -> None:
    """It is the user's; a number is added, and a name that was asked for is refused."""
    link = tmp_path / "grid.png"
    link.symlink_to(tmp_path / "gone.png")

    assert free_path(link) == tmp_path / "grid_2.png"
    with pytest.raises(UsageError, match="nothing is overwritten"):
        require_free(link)
