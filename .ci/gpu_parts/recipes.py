"""Part 4: what single choices of a recipe are worth on latents of 4 x 32 x 32, in the same time, by two seeds each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import torch
from peers.arena import Arena, Scores, compare, read_middles
from peers.training import LdmRun, build_step, train_in_turns

from latentart.builders import build_denoiser
from latentart.config.ldm import LdmConfig
from latentart.config.workspace import resolve
from latentart.core.latents import sample_posterior
from latentart.data.held_out import split_held_out
from latentart.data.latent_cache import LatentCache
from latentart.data.synthetic.art import write_raw_folder
from latentart.layout import Workspace
from latentart.model.folder import load_autoencoder
from latentart.model.generate import SamplerSettings
from latentart.scoring.judging import alternate, spread
from latentart.scoring.metrics.judge import recognition, train_judge
from latentart.training.encode import encode
from latentart.training.steps.ldm_step import LdmBatch
from latentart.training.train_vae import train_vae
from latentart.workspace.clean_data import clean_data
from latentart.workspace.init import init_workspace
from part import Part

SEEDS = (0, 1)
SAMPLES = 96  # of which each run is judged by as many
SAMPLING = 0.25  # of a run's time, about, that drawing and judging take besides
BASE = "v, min-SNR, AdamW, linear attention"
REPLACED = {
    "Muon in place of AdamW": ["ldm.training.optimizer.kind=muon"],
    "flow, straight, in place of v, cosine": [
        "ldm.diffusion.target=flow",
        "ldm.diffusion.schedule.kind=straight",
    ],
    "equal weights in place of min-SNR": ["ldm.diffusion.weighting=uniform"],
    "learned weights in place of min-SNR": ["ldm.diffusion.weighting=learned"],
    "full attention at 16 x 16 in place of linear": ['ldm.model.attention=["linear","full","linear"]'],
}
EQUIVARIANT = "equivariance 0.5 in place of 0, of the autoencoder"


def main() -> None:
    """Train two autoencoders, then every recipe for the same seconds, in turns."""
    part = Part()
    plain = build_arena(part, 0.0)
    part.figure("other real pictures", str(plain.ceiling), numbers={"Fréchet distance": plain.ceiling.frechet})
    arenas = {BASE: plain, **dict.fromkeys(REPLACED, plain)}
    with part.trying(EQUIVARIANT):
        arenas[EQUIVARIANT] = build_arena(part, 0.5, plain)
    # what is slow the first time only, as a GPU's kernels are loaded, is nobody's
    train_in_turns(
        [start(part, arenas[name], config_of(part, REPLACED.get(name, [])), name, 0, 0.1) for name in arenas]
    )
    count = len(arenas) * len(SEEDS)
    seconds = 0.1 if part.rehearses else max(1.0, (part.left() - 5) / count / (1 + SAMPLING))
    found: dict[str, list[Scores]] = {}
    for seed in SEEDS:  # all of the first seed before any of the second, should time run out
        runs = {
            name: start(part, arenas[name], config_of(part, REPLACED.get(name, [])), name, seed, seconds)
            for name in arenas
        }
        train_in_turns(list(runs.values()), at_a_time=1.0)
        for name, run in runs.items():
            with part.trying(name):
                found.setdefault(name, []).append(score(part, arenas[name], run, seed))
                say(part, name, found[name], run, found[BASE])


def settings_for(part: Part, equivariance: float) -> list[str]:
    """Return how the demo's preset is changed: pictures of 128 px, one stage of the autoencoder, f = 4."""
    side = 32 if part.rehearses else 128
    stage = {
        "name": "l1",
        "steps": 4 if part.rehearses else 300,
        "resolution": side // 2,
        "batch_size": 8 if part.rehearses else 32,
        "crop": [0.5, 0.5],
        "weights": {"equivariance": equivariance},
    }
    never = 1_000_000
    return [
        "data.root=../data",
        f"data.max_side={side * 5 // 4}",
        "data.held_out=0.5",
        f"vae.stages={json.dumps([stage])}",
        f"vae.run.evaluate_every={never}",
        f"ldm.training.resolution={side}",
        "data.workers=0" if part.rehearses else "data.workers=4",
    ]


def config_of(part: Part, settings: list[str]) -> LdmConfig:
    """Return the demo's recipe with some settings replaced, at batches that a GPU wants."""
    batch = 4 if part.rehearses else 128
    return resolve({"preset": "demo"}, [f"ldm.training.batch_size={batch}", *settings]).ldm


def build_arena(part: Part, equivariance: float, judged: Arena | None = None) -> Arena:
    """Return what runs share: pictures, an autoencoder's latents of them, and a judge, another arena's where given."""
    folder = part.work / f"equivariance-{equivariance:g}"
    raw = part.work / "raw"
    if judged is None:
        side = 40 if part.rehearses else 160
        write_raw_folder(raw, seed=0, pictures_per_style=8 if part.rehearses else 96, size=side)
    workspace = init_workspace(folder, "demo", raw.resolve(), settings_for(part, equivariance))
    if judged is None:
        clean_data(workspace, quiet=True)
    train_vae(workspace, "all", part.placement, quiet=True)
    cache = LatentCache.open(encode(workspace, part.placement, quiet=True))
    model = load_autoencoder(workspace, part.placement)
    if judged is not None:
        return replace(judged, workspace=workspace, model=model, cache=cache)
    return Arena(workspace, model, cache, *open_pictures(part, workspace), part.placement)  # type: ignore[arg-type]


def open_pictures(part: Part, workspace: Workspace) -> tuple[object, ...]:
    """Return what to train on, what is held out, the judge, the reference with its styles, and the judge's ceiling."""
    entries, names = workspace.read_pictures()
    training, held_out = split_held_out(entries, workspace.config.data.held_out)
    teaching, reference = alternate(entries, held_out)
    reference = spread(reference, SAMPLES)
    taught, taught_style = read_middles(workspace, entries, names, teaching)
    known, known_style = read_middles(workspace, entries, names, reference)
    steps, size = (3, 16) if part.rehearses else (200, 64)
    judge = train_judge(taught, taught_style, len(names), steps=steps, batch_size=size)
    others = spread(range(len(taught)), len(known))
    distance = compare(judge, taught[others], known, taught_style[others]).frechet
    ceiling = Scores(distance, recognition(judge, known, known_style))
    return training, held_out, judge, known, known_style, ceiling


def start(part: Part, arena: Arena, config: LdmConfig, name: str, seed: int, seconds: float) -> LdmRun:
    """Return a run of a recipe from scratch; its weights and batches follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_denoiser(config.model, arena.cache.latent_shape[0], [arena.num_styles])
    part.placement.place(network)
    training = config.training
    step_fn = build_step(network, config.diffusion, training.optimizer, part.placement, training.run.ema)
    return LdmRun(name, step_fn, batches_on_device(arena, config, seed), training.optimizer, seconds)


def batches_on_device(arena: Arena, config: LdmConfig, seed: int) -> Callable[[int], LdmBatch]:
    """Return batches drawn where they are used, as a CPU's own draws would take longer than the steps."""
    device, size, schedule = arena.placement.device, config.training.batch_size, config.diffusion.num_steps
    cache = arena.cache
    moments = cache.read(arena.training, [0] * len(arena.training)).float().to(device)
    styles = cache.style_id[arena.training].to(device)
    generator = torch.Generator(device).manual_seed(seed)

    def draw(_step: int) -> LdmBatch:
        rows = torch.randint(len(moments), (size,), generator=generator, device=device)
        noise, eps = torch.randn(2, size, *cache.latent_shape, generator=generator, device=device)
        x0 = cache.normalizer.normalize(sample_posterior(moments[rows], noise))
        uniform = torch.rand(size, generator=generator, device=device)
        t = ((torch.arange(size, device=device) + uniform) / size * schedule).long().clamp(max=schedule - 1)
        is_dropped = torch.rand(size, generator=generator, device=device) < config.training.style_dropout
        return LdmBatch(x0, eps, t, torch.where(is_dropped, arena.num_styles, styles[rows]))

    return draw


def score(part: Part, arena: Arena, run: LdmRun, seed: int) -> Scores:
    """Return how near samples of a run's average come to real pictures."""
    settings = SamplerSettings(sampler="ddim", steps=2 if part.rehearses else 20, guidance=1.5, batch_size=SAMPLES)
    return arena.score(arena.draw(run.step_fn.ema.network, run.step_fn.task, settings, seed))


def say(part: Part, name: str, found: list[Scores], run: LdmRun, base: list[Scores]) -> None:
    """Say how a recipe did by the seeds it has had."""
    distances = [one.frechet for one in found]
    mean, other = fmean(distances), fmean(one.frechet for one in base)
    each = " and ".join(f"{one:.2f}" for one in distances)
    recognized = fmean(one.recognized for one in found)
    value = (
        f"Fréchet distance {mean:.2f} ({each}), {recognized:.0%} recognized, {run.steps} updates in {run.limit:.1f} s"
    )
    value += "" if name == BASE else f", {mean / other:.2f} times the first line's"
    numbers = {"Fréchet distance": mean, "recognized": recognized, "updates": run.steps}
    part.figure(name, value, numbers=numbers)


if __name__ == "__main__":
    main()
