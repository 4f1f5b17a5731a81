"""`weights import FOLDER`: autoencoders as diffusers writes them become ours, and none is trusted."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from latentart.builders import build_autoencoder
from latentart.config.pretrained import DiffusersConfig
from latentart.core.latents import split_moments
from latentart.core.networks.tiling import decode_tiled, encode_tiled
from latentart.layout import Workspace
from latentart.model import description
from latentart.model.folder import load_model
from latentart.planning.phases import Planner, cache_bytes, cache_variants
from latentart.planning.pictures import find_pictures
from latentart.process.devices import Placement

diffusers = pytest.importorskip("diffusers")

Run = Callable[..., Any]
CPU = Placement(torch.device("cpu"), "fp32")
IMPORT = ("weights", "import", "theirs", "--as", "autoencoder")
KL = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
}
DC_BLOCKS = ("ResBlock",) * 5 + ("EfficientViTBlock",)
DC = {
    **{f"{part}_block_out_channels": (8, 8, 8, 8, 8, 16) for part in ("encoder", "decoder")},
    **{f"{part}_layers_per_block": (1,) * 6 for part in ("encoder", "decoder")},
    **{f"{part}_block_types": DC_BLOCKS for part in ("encoder", "decoder")},
}


def build_theirs(kind: str) -> nn.Module:
    """Return one of their networks, as small as it goes, with the weights of seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        match kind:
            case "sd":
                return diffusers.AutoencoderKL(**KL)
            case "flux":
                bare = {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.1159}
                return diffusers.AutoencoderKL(**KL, **bare, latent_channels=16, scaling_factor=0.3611)
            case "dc":
                return diffusers.AutoencoderDC(**DC, latent_channels=8, attention_head_dim=8)
            case "tiny":
                widths = {f"{part}_block_out_channels": (8, 8) for part in ("encoder", "decoder")}
                return diffusers.AutoencoderTiny(**widths, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))
    raise AssertionError(kind)


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[nn.Module, Path]]:
    """Return a network of a kind and the folder that diffusers wrote of it."""
    home = tmp_path_factory.mktemp("theirs")
    made: dict[str, nn.Module] = {}

    def find(kind: str) -> tuple[nn.Module, Path]:
        if kind not in made:
            # with a gradient to come torch multiplies matrices in another order
            made[kind] = build_theirs(kind).eval().requires_grad_(requires_grad=False)
            made[kind].save_pretrained(home / kind)
        return made[kind], home / kind

    return find


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a clean workspace is kept, once there is one."""
    return tmp_path_factory.mktemp("clean") / "art"


@pytest.fixture
def art(kept: Path, init_tiny: Run, pictures: Run, run: Run, tmp_path: Path) -> Path:
    """Return a workspace with clean pictures and nothing trained."""
    if not kept.exists():
        made = init_tiny(pictures(tmp_path / "raw"))
        assert run(made, "clean-data", "data.workers=1").code == 0
        made.rename(kept)
    return Path(shutil.copytree(kept, tmp_path / "art"))


@pytest.mark.parametrize("kind", ["sd", "flux", "dc", "tiny"])
def test_they_encode_and_decode_as_in_diffusers(run: Run, art: Path, theirs: Run, kind: str) -> None:
    """Bit for bit; what has no spread is a point. Their config and their tensors' names stay in the model folder."""
    network, folder = theirs(kind)
    shutil.copytree(folder, art / "theirs")
    size = ("ldm.training.resolution=64",) if kind == "dc" else ()

    done = run(art, *IMPORT, *size)

    assert (done.code, done.out) == (0, "runs/vae/model\n"), done.err
    assert "PSNR" in done.err
    assert "factors of scale and shift are not used" in done.err
    model = load_model(art / "runs/vae/model", CPU)
    autoencoder = model.autoencoder
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        moments, encoded = autoencoder.encode(images), network.encode(images)
        mean, logvar = split_moments(moments)
        if kind in ("sd", "flux"):
            assert torch.equal(moments, encoded.latent_dist.parameters)
        else:
            assert torch.equal(mean, encoded[0])
            assert float(logvar.max()) == -30.0
        assert torch.equal(autoencoder.decode(mean), network.decode(mean).sample)
    assert model.about["autoencoder"]["network"] == json.loads((folder / "config.json").read_text())
    kept = load_file(art / "runs/vae/model/autoencoder.safetensors")
    given = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert kept.keys() == given.keys()
    assert all(torch.equal(kept[name], given[name]) for name in kept)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sd", "flux", "dc", "tiny"])
def test_they_run_in_tiles_and_in_half_precision(theirs: Run, kind: str) -> None:
    """Tiles of a network that sees no farther than a quarter of their overlap make the same; bf16 is near float32."""
    network, _ = theirs(kind)
    autoencoder = build_autoencoder(DiffusersConfig(network=json.loads(network.to_json_string())))
    autoencoder.load_state_dict(network.state_dict())
    images = torch.rand(1, 3, 128, 192) * 2 - 1

    z, _ = split_moments(encode_tiled(autoencoder, images, tile=128, overlap=64))
    images_hat = decode_tiled(autoencoder, z, tile=128, overlap=64)

    assert images_hat.shape == images.shape
    if kind == "tiny":
        torch.testing.assert_close(z, network.encode(images).latents)
        torch.testing.assert_close(images_hat, network.decode(z).sample)
    half = Placement(torch.device("cpu"), "bf16")
    half.place(autoencoder)
    with half.autocast():
        moments = autoencoder.encode(images)
    assert moments.dtype == torch.float32
    assert float((split_moments(moments)[0] - split_moments(autoencoder.encode(images))[0]).abs().mean()) < 0.05


@pytest.mark.parametrize("kind", ["flux", "dc"])
def test_the_whole_path_goes_on_from_them(run: Run, art: Path, theirs: Run, kind: str) -> None:
    """The denoiser takes 16 channels, or latents 32 times smaller; every command works as with an autoencoder of ours.

    `evaluate vae` looks at pictures of 16 latents a side, which are large at 32 times smaller ones.
    """
    _, folder = theirs(kind)
    (art / "theirs").mkdir()
    shutil.copytree(folder, art / "theirs/vae")  # as in a pipeline's folder
    size = ("ldm.training.resolution=64",) if kind == "dc" else ()
    channels, factor = (8, 32) if kind == "dc" else (16, 2)

    for words in (
        (*IMPORT, *size),
        ("train", "ldm", "ldm.training.steps=2", *size),
        ("sample", "-s", "Cubism", "--grid", "1x2", "--out", "two.png"),
        *([("evaluate", "vae")] if kind == "flux" else []),
        ("reconstruct", "two.png", "--out", "page.png"),
    ):
        done = run(art, *words)
        assert done.code == 0, done.err

    assert (art / "two.png").stat().st_size > 0
    about = json.loads(run(art, "info", "--json").out)
    assert (about["latent_factor"], len(about["latents"]["std"])) == (factor, channels)
    assert about["training"]["vae"]["imported"] == "theirs"
    assert about["training"]["vae"]["psnr"] > 0
    assert same_bytes(art / "runs/ldm/model/autoencoder.safetensors", art / "runs/vae/model/autoencoder.safetensors")


def same_bytes(one: Path, other: Path) -> bool:
    """Tell whether two files are equal."""
    return one.read_bytes() == other.read_bytes()


TUNE = {
    "name": "tune",
    "trainable": "decoder",
    "resolution": 32,
    "batch_size": 4,
    "steps": 2,
    "tanh": True,
    "weights": {"adversarial": 0.1, "perceptual": 0.1},
}


def test_the_decoder_is_tuned_and_nothing_else(run: Run, art: Path, theirs: Run) -> None:
    """By our losses, across calls, when a stage says so; latents stay, bit for bit, and so does where it came from."""
    shutil.copytree(theirs("sd")[1], art / "theirs")
    assert run(art, *IMPORT).code == 0
    model = art / "runs/vae/model"
    before, about = load_file(model / "autoencoder.safetensors"), json.loads((model / "model.json").read_text())

    line = run(art, "train", "vae").error(2)
    assert line.startswith("error: the autoencoder in runs/vae/model was imported, and is left as it is. Go on with")
    assert same_tensors(load_file(model / "autoencoder.safetensors"), before, "")
    for stop in ("--max-steps", "1"), ():
        done = run(art, "train", "vae", f"vae.stages={json.dumps([TUNE])}", *stop)
        assert done.code == 0, done.err

    after, tuned = load_file(model / "autoencoder.safetensors"), json.loads((model / "model.json").read_text())
    assert tuned["autoencoder"] == about["autoencoder"]
    assert {name: tuned["training"]["vae"][name] for name in ("imported", "step", "stage")} == {
        "imported": "theirs",
        "step": 2,
        "stage": "tune",
    }
    assert tuned["uses_tanh"] is False
    for part in ("encoder.", "quant_conv."):
        assert same_tensors(after, before, part)
    for part in ("decoder.", "post_quant_conv."):
        assert not same_tensors(after, before, part)


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], prefix: str) -> bool:
    """Tell whether the tensors whose names begin so are equal bit for bit."""
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one if name.startswith(prefix))


def test_whoever_plans_reckons_with_the_imported_one(run: Run, art: Path, theirs: Run) -> None:
    """No stage is left, and a cache of 16 channels at half the side is of that size."""
    shutil.copytree(theirs("flux")[1], art / "theirs")
    assert run(art, *IMPORT).code == 0
    workspace = Workspace.open(art / "latentart.json")

    planner = Planner(workspace, "cpu", 1.0, art / "scratch", find_pictures(workspace, art / "scratch"))

    assert list(planner.stages()) == []
    assert planner.advice == ["vae: the autoencoder was imported; tuning it is not counted"]
    assert cache_bytes(workspace, 10) == 10 * cache_variants(workspace) * 2 * 16 * 16 * 16 * 2


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the config.json of a folder."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def retensor(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a folder."""
    path = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_half_numbers_and_former_names_are_read(run: Run, art: Path, theirs: Run) -> None:
    """Most autoencoders of Stable Diffusion have their attention under the names of before 2023."""
    network, folder = theirs("sd")
    shutil.copytree(folder, art / "theirs")
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def age(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensor, old = tensors.pop(name), name
            for new, before in former.items() if ".attentions." in name else ():
                old = old.replace(f".{new}.", f".{before}.")
            tensors[old] = tensor.half()

    retensor(art / "theirs", age)

    assert run(art, *IMPORT).code == 0

    kept, given = load_file(art / "runs/vae/model/autoencoder.safetensors"), network.state_dict()
    assert kept.keys() == given.keys()
    assert all(torch.equal(kept[name], given[name].half().float()) for name in kept)


def _without_weights(folder: Path) -> None:
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.rename(folder / "diffusion_pytorch_model.bin")


def _cut(folder: Path) -> None:
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "theirs has no config.json, nor has its vae/."),
    "pickle": (
        _without_weights,
        "theirs has only pickles, which may hold code, where one .safetensors file should be.",
    ),
    "cut": (_cut, "is not a sound safetensors file"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not usable JSON"),
    "no object": (lambda folder: (folder / "config.json").write_text("[]"), "no autoencoder that can be taken: "),
    "another class": (
        lambda folder: rewrite(folder, lambda config: config.update(_class_name="UNet2DModel")),
        "its class is 'UNet2DModel', and AutoencoderKL, AutoencoderDC, AutoencoderTiny are known.",
    ),
    "huge width": (
        lambda folder: rewrite(folder, lambda config: config.update(block_out_channels=[2**40, 2**40])),
        "block_out_channels is beyond what is known: 1099511627776.",
    ),
    "large": (
        lambda folder: rewrite(folder, lambda config: config.update(block_out_channels=[8192, 8192])),
        "bytes, which is too little for what theirs/config.json describes.",
    ),
    "many layers": (
        lambda folder: rewrite(folder, lambda config: config.update(layers_per_block=10**9)),
        "layers_per_block is beyond what is known: 1000000000.",
    ),
    "many stages": (
        lambda folder: rewrite(folder, lambda config: config.update(block_out_channels=[8] * 99)),
        "block_out_channels is beyond what is known: ",
    ),
    "wrong kind": (
        lambda folder: rewrite(folder, lambda config: config.update(norm_num_groups="many")),
        "diffusers cannot build it: TypeError",
    ),
    "stages that differ": (
        lambda folder: rewrite(folder, lambda config: config.update(block_out_channels=[8, 8, 8, 8])),
        "config.json describes no autoencoder that can be taken: ",
    ),
    "no pictures": (
        lambda folder: rewrite(folder, lambda config: config.update(in_channels=4)),
        "it is not for pictures of three channels.",
    ),
    "missing": (
        lambda folder: retensor(folder, lambda tensors: tensors.pop("quant_conv.weight")),  # type: ignore[arg-type, return-value]
        "The saved autoencoder does not fit: 'quant_conv.weight' is missing.",
    ),
    "more": (
        lambda folder: retensor(folder, lambda tensors: tensors.update({"bottle.weight": torch.zeros(1)})),
        "The saved autoencoder does not fit: 'bottle.weight' is not part of it.",
    ),
    "another shape": (
        lambda folder: retensor(folder, lambda tensors: tensors.update({"encoder.conv_in.bias": torch.zeros(3)})),
        "'encoder.conv_in.bias' has shape [3], not [8].",
    ),
    "not finite": (
        lambda folder: retensor(folder, lambda tensors: tensors["encoder.conv_in.bias"].fill_(float("nan"))),  # type: ignore[arg-type, return-value]
        "'encoder.conv_in.bias' of the autoencoder is not finite.",
    ),
    "beyond all numbers": (
        lambda folder: retensor(folder, lambda tensors: tensors["quant_conv.weight"].fill_(3e38)),  # type: ignore[arg-type, return-value]
        "makes numbers of these pictures that are not finite.",
    ),
}


def test_hostile_folders_are_refused(run: Run, art: Path, theirs: Run) -> None:
    """Each in one line, exit code 6, and nothing is left behind."""
    _, folder = theirs("sd")
    for name, (spoil, message) in HOSTILE.items():
        shutil.copytree(folder, art / "theirs")
        spoil(art / "theirs")

        line = run(art, *IMPORT).error(6)

        assert message in line, name
        assert len(line) < 400, name
        assert not (art / "runs").exists(), name
        shutil.rmtree(art / "theirs")


def test_a_hostile_description_is_refused(run: Run, art: Path, theirs: Run) -> None:
    """In a model folder too, which a stranger may hand on: before anything is allocated."""
    shutil.copytree(theirs("tiny")[1], art / "theirs")
    assert run(art, *IMPORT).code == 0
    path = art / "runs/vae/model/model.json"
    sound = json.loads(path.read_text())
    spoiled: dict[str, Any] = {
        "_class_name": "os.system",
        "latent_channels": 10**12,
        "num_encoder_blocks": [10**9, 1],
        "decoder_block_out_channels": [8, 8, 8],
        "encoder_block_out_channels": [16384, 16384],
        "upsampling_scaling_factor": 4,
    }
    for name, value in spoiled.items():
        network = {**sound["autoencoder"]["network"], name: value}
        path.write_text(json.dumps({**sound, "autoencoder": {"kind": "diffusers", "network": network}}))

        assert "model.json" in run(art, "info", "runs/vae/model").error(6), name


def test_what_is_there_stays(run: Run, art: Path, theirs: Run, snapshot: Run) -> None:
    """Nothing is overwritten; and a resolution that cannot be is said before anything is written."""
    shutil.copytree(theirs("dc")[1], art / "theirs")
    line = run(art, *IMPORT).error(3)
    assert line == (
        "error: ldm.training.resolution 32 is no multiple of 64 (the autoencoder halves 32-fold, "
        "the denoiser 2-fold): 64 would do."
    )
    assert not (art / "runs").exists()
    shutil.rmtree(art / "theirs")
    shutil.copytree(theirs("tiny")[1], art / "theirs")
    assert run(art, *IMPORT).code == 0
    before = snapshot(art)

    assert "runs/vae/model exists; nothing is overwritten." in run(art, *IMPORT).error(2)
    assert snapshot(art) == before


def test_without_diffusers_one_line_says_what_to_do(
    run: Run, art: Path, theirs: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is for the import, and for a model that was imported elsewhere."""
    shutil.copytree(theirs("tiny")[1], art / "theirs")
    assert run(art, *IMPORT, "--out", "mine").code == 0
    description.bytes_needed.cache_clear()
    monkeypatch.setitem(sys.modules, "diffusers", None)

    for words in (IMPORT, ("info", "mine")):
        line = run(art, *words).error(6)
        assert line.startswith("error: this autoencoder is built by diffusers, which is not there")
        assert 'Run `pip install ".[diffusers]"` in the folder' in line
    assert not (art / "runs").exists()
