"""`sample` and `reconstruct`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentart.cli.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    Overrides,
    QuietOption,
    find_model,
    only_settings,
    open_workspace,
    parse_grid,
    place,
    require_place,
    say,
    speaks,
    tell,
    write_json,
)
from latentart.errors import UsageError, shortened
from latentart.kinds import Engine, Sampler

if TYPE_CHECKING:
    from latentart.config.sample import SampleConfig
    from latentart.core.seeds import Seed
    from latentart.model.generate import SamplerSettings
    from latentart.sampling.sample import SampleResult


USUAL_STRENGTH = 0.6
CONFLICTS = (
    ("grid", "count", "both say how many"),
    ("guidance", "autoguidance", "pull in two ways"),
    ("init_image", "invert", "both name a picture to begin from"),
    ("mask", "invert", "do not go together: what is inverted is restyled whole"),
    *(("invert", name, "do not go together: the picture takes the place of the seed") for name in ("seed", "count")),
    *(("invert", name, "do not go together: there is one picture per style") for name in ("grid", "walk")),
    ("walk", "grid", "both lay out the pictures: a walk has a row for each leg"),
    *(("movie", name, "both say what is written") for name in ("separate", "out")),
)
NEEDED = {"strength": ("init_image", "invert"), "mask": ("init_image",), "from_style": ("invert",)}

StyleOption = Annotated[
    list[str] | None,
    typer.Option("--style", "-s", help="A style, all, or a blend as Cubism:0.6+Ukiyo_e:0.4; repeat it for more."),
]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="COLUMN=VALUE", help="Another label, as genre=portrait; repeat.")
]
GridOption = Annotated[str | None, typer.Option("--grid", help="Rows x columns, as 4x4; else one row per style.")]
CountOption = Annotated[
    int | None, typer.Option("--count", "-n", min=1, help="Pictures per style without a grid; seeds of a --walk.")
]
SeedOption = Annotated[
    str | None, typer.Option("--seed", help="Of the first picture, else 0; 3.25 and 3:40:0.5 lie between two others.")
]
StepsOption = Annotated[int | None, typer.Option("--steps", min=1, help="Denoising steps.")]
SamplerOption = Annotated[Sampler | None, typer.Option("--sampler", help="How steps are made.")]
EngineOption = Annotated[
    Engine | None, typer.Option("--engine", help="onnx draws faster on a CPU, after some seconds; else torch.")
]
EtaOption = Annotated[float | None, typer.Option("--eta", min=0, max=1, help="DDIM's noise: 0 none, 1 DDPM.")]
GuidanceOption = Annotated[float | None, typer.Option("--guidance", min=0, help="Pull towards the style; 1 is none.")]
AutoguidanceOption = Annotated[
    float | None,
    typer.Option("--autoguidance", min=0, help="Pull away from an early average of the run instead; 1 is none."),
]
IntervalOption = Annotated[
    tuple[float, float] | None,
    typer.Option("--interval", metavar="LOW HIGH", help="Noise levels that are guided, within 0 clean … 1 noise."),
]
SizeOption = Annotated[
    str | None, typer.Option("--size", metavar="WxH", help="Width x height in pixels, or one number for both.")
]
WalkOption = Annotated[
    int | None, typer.Option("--walk", min=2, help="Pictures on the way from each seed to the next.")
]
MovieOption = Annotated[
    Path | None, typer.Option("--movie", help="A .gif or .webp of the denoising, or of the --walk, in place of a grid.")
]
InitImageOption = Annotated[Path | None, typer.Option("--init-image", help="A picture to begin from.")]
StrengthOption = Annotated[
    float | None, typer.Option("--strength", min=0, max=1, help="How much of the steps are taken from it: 1 all.")
]
MaskOption = Annotated[
    Path | None, typer.Option("--mask", help="White where --init-image is painted anew; the rest stays.")
]
InvertOption = Annotated[
    Path | None, typer.Option("--invert", help="A picture to restyle: walked back to its noise, then down again.")
]
FromStyleOption = Annotated[
    str | None, typer.Option("--from-style", help="The style of the picture to --invert; else none.")
]
FromOption = Annotated[Path | None, typer.Option("--from", help="Repeat a picture or movie that was sampled.")]
SeparateOption = Annotated[bool, typer.Option("--separate", help="Single pictures in a folder.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="The grid's file, .png, .jpg or .webp, or the folder with --separate.")
]


def sample(
    overrides: Overrides = None,
    style: StyleOption = None,
    label: LabelOption = None,
    grid: GridOption = None,
    count: CountOption = None,
    seed: SeedOption = None,
    steps: StepsOption = None,
    sampler: SamplerOption = None,
    engine: EngineOption = None,
    eta: EtaOption = None,
    guidance: GuidanceOption = None,
    interval: IntervalOption = None,
    autoguidance: AutoguidanceOption = None,
    size: SizeOption = None,
    walk: WalkOption = None,
    movie: MovieOption = None,
    init_image: InitImageOption = None,
    strength: StrengthOption = None,
    mask: MaskOption = None,
    invert: InvertOption = None,
    from_style: FromStyleOption = None,
    source: FromOption = None,
    separate: SeparateOption = False,
    out: OutOption = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Draw pictures by style into a grid. The same seed gives the same picture."""
    how: dict[str, Any] = {"steps": steps, "sampler": sampler, "eta": eta, "guidance": guidance}
    how |= {"guidance_interval": interval, "autoguidance": autoguidance, "engine": engine}
    given: dict[str, Any] = {"style": style, "label": label, "grid": grid, "count": count, "seed": seed, **how}
    given |= {"size": size, "walk": walk, "movie": movie, "init_image": init_image, "strength": strength, "mask": mask}
    given |= {"invert": invert, "from_style": from_style, "separate": separate or None, "out": out, "from": source}
    check_options({name: value for name, value in given.items() if value not in (None, [])})
    cells, shape = parse_grid(grid) if grid is not None else None, parse_size(size) if size is not None else None
    first_seed = read_seed(seed)
    settings, samples, folder = find_sampling(model, config, overrides)
    from latentart.sampling.request import OriginRequest, SampleRequest
    from latentart.sampling.sample import sample_again, sample_pictures, settings_from

    placement = place(device, settings.precision)
    if source is not None:
        report(sample_again(source, folder, samples, out, settings, placement, quiet=quiet), as_json, is_again=True)
        return
    origin, picture = None, init_image or invert
    if picture is not None:
        usual = 1.0 if invert or mask else USUAL_STRENGTH
        origin = OriginRequest(picture, usual if strength is None else strength, mask, invert is not None, from_style)
    chosen = settings_from(settings, how)
    refuse_noise(eta, chosen, is_inverting=invert is not None)
    request = SampleRequest(
        styles=tuple(style or ()),
        grid=cells,
        count=count,
        seed=first_seed,
        separate=separate,
        out=out,
        labels=tuple(label or ()),
        size=shape,
        walk=walk,
        movie=movie,
        origin=origin,
    )
    report(sample_pictures(folder, samples, request, chosen, placement, quiet=quiet), as_json, is_again=bool(invert))


def check_options(given: dict[str, Any]) -> None:
    """Refuse options that say the same thing twice, or nothing without another.

    Raises:
        UsageError: the first such pair; or no style where one is needed.
    """
    names = {name: "--" + name.replace("guidance_", "").replace("_", "-") for name in given}
    if "from" in given and (others := given.keys() - {"from", "out"}):
        msg = f"--from repeats a picture as it is; leave out {', '.join(sorted(names[name] for name in others))}."
        raise UsageError(msg, "Only --out, --model, --config, --device, --quiet and --json go with it.")
    for one, other, why in CONFLICTS:
        if one in given and other in given:
            msg = f"{names[one]} and {names[other]} {why}."
            raise UsageError(msg, "Give one of them.")
    for one, wanted in NEEDED.items():
        if one in given and not given.keys() & set(wanted):
            needed = " or ".join("--" + name.replace("_", "-") for name in wanted)
            msg = f"{names[one]} says nothing without {needed}."
            raise UsageError(msg, f"Add {needed}, or leave it out.")
    if not given.keys() & {"from", "style"}:
        msg = "Missing option '--style'."
        raise UsageError(msg, "Name one with --style, or say --style all; `latentart info` lists them.")
    for one in ("guidance", "autoguidance"):
        if one in given and not math.isfinite(given[one]):
            msg = f"{names[one]} {given[one]} is no number to reckon with."
            raise UsageError(msg)
    interval, movie = given.get("guidance_interval"), given.get("movie")
    if interval is not None and not 0 <= interval[0] <= interval[1] <= 1:
        msg = f"--interval {interval[0]:g} {interval[1]:g} does not rise within 0 to 1."
        raise UsageError(msg, "Write low and high, as --interval 0.2 0.8.")
    if movie is not None and movie.suffix.lower() not in (".gif", ".webp"):
        msg = f"--movie {movie} is neither GIF nor WebP."
        raise UsageError(msg, "Name a file that ends in .gif or .webp.")


def read_seed(text: str | None) -> Seed:
    """Return the seed that is asked for, 0 where none is.

    Raises:
        UsageError: it is none.
    """
    from latentart.core.seeds import parse_seed

    try:
        return parse_seed(text or "0")
    except ValueError:
        msg = f"--seed {shortened(text or '')} is no seed, or too large."
        raise UsageError(msg, "Write a number from 0 on, as 7 or 3.25, or start:end:share, as 3:40:0.5.") from None


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) of a size written as 512x384, or as 512 for both.

    Raises:
        UsageError: it is neither.
    """
    match = re.fullmatch(r"(\d{1,5})(?:[xX×](\d{1,5}))?", text.strip())
    if match is None:
        msg = f"'{text}' is not a size."
        raise UsageError(msg, "Write width x height in pixels, as 512x384, or one number for both.")
    return int(match[1]), int(match[2] or match[1])


def find_sampling(
    model: Path | None, config: Path | None, overrides: list[str] | None
) -> tuple[SampleConfig, Path, Path]:
    """Return the settings, where samples go, and the model folder: of the workspace, but for a ``--model`` alone."""
    if model is None or config is not None:
        workspace = open_workspace(config, overrides)
        return workspace.config.sample, workspace.samples, model or workspace.ldm_run / "model"
    from latentart.config.sample import SampleConfig
    from latentart.config.workspace import resolve

    usual = {"sample": SampleConfig().model_dump(mode="json")}
    return resolve(usual, only_settings(overrides)).sample, Path("samples"), model


def refuse_noise(eta: float | None, settings: SamplerSettings, *, is_inverting: bool) -> None:
    """Refuse noise on the way down from an inverted picture, and remark on an η that has no effect.

    Raises:
        UsageError: the sampler adds noise.
    """
    if is_inverting and (settings.sampler == "ddpm" or (settings.sampler == "ddim" and settings.eta > 0)):
        msg = "--invert needs a way down without noise, or the picture is not found again."
        raise UsageError(msg, "Add --eta 0 and a --sampler other than ddpm.")
    if eta is not None and settings.sampler != "ddim":
        say(f"warning: --eta has no effect with the {settings.sampler} sampler")


def report(result: SampleResult, as_json: bool, *, is_again: bool) -> None:
    """Write the files, and what to do next."""
    if not speaks():
        return
    if as_json:
        write_json({"files": [str(path) for path in result.paths], "is_new": result.is_new})
        return
    for path in result.paths:
        tell(path)
    if not result.is_new:
        say("These pictures were there already, made with the same settings.")
    elif not is_again:
        say(f"More of them: the same with --seed {result.next_seed}.")


def reconstruct(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Picture files.")],
    size: Annotated[int | None, typer.Option("--size", help="Pixels of the shorter side; else the model's.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the pages; else reconstructions.")] = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send pictures through the autoencoder. A page shows picture, reconstruction and error map side by side."""
    from latentart.sampling.reconstruct import reconstruct as run_reconstruct

    folder = find_model(model, config, kind="vae")
    require_place((out or Path("reconstructions")) / "page.png")
    pages = run_reconstruct(images, folder, out or Path("reconstructions"), place(device), size=size)
    if as_json:
        rows = [{"source": str(p.source), "mean_error": p.error, "psnr": p.psnr, "page": str(p.page)} for p in pages]
        write_json({"pictures": rows})
        return
    for page in pages:
        tell(f"{page.page}: mean error {page.error:.2f} of 255, PSNR {page.psnr:.1f} dB")
