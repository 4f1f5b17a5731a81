"""LPIPS with real files: the lpips package's own distances, and every kind of wrong file refused."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import lpips
import pytest
import torch
import torchvision
from torch import Tensor, nn

from latentart.errors import DownloadError
from latentart.kinds import Backbone
from latentart.model.weights.perceptual import (
    BACKBONES,
    check_weights,
    find_weights,
    hub_file,
    hub_folder,
    load_linear_layers,
    load_perceptual,
)

NETWORKS = {
    "vgg16": torchvision.models.vgg16,
    "alexnet": torchvision.models.alexnet,
    "squeezenet": torchvision.models.squeezenet1_1,
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return uniform float32 numbers in -1…1."""
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 1


def write_backbone(backbone: Backbone, path: Path) -> dict[str, Tensor]:
    """Write a file like torchvision's with random features and a small classifier; return the features' state."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in NETWORKS[backbone](weights=None).features.state_dict().items()}
    state = {
        name: draw(*shape, seed=number) * (6 / max(shape[1:].numel(), 16)) ** 0.5
        for number, (name, shape) in enumerate(shapes.items())
    }
    torch.save({f"features.{name}": value for name, value in state.items()} | {"classifier.1.bias": draw(2)}, path)
    return state


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("backbone", "name"), [("vgg16", "vgg"), ("alexnet", "alex"), ("squeezenet", "squeeze")])
def test_distances_are_those_of_the_lpips_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: Backbone, name: str
) -> None:
    """Same backbone weights, same linear layers: the same distance for each image, and the same gradient."""
    state = write_backbone(backbone, tmp_path / "backbone.pth")
    with monkeypatch.context() as patch:
        for way in ("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_"):  # a second for VGG, and all replaced
            patch.setattr(nn.init, way, lambda tensor, *_, **__: tensor)
        theirs = lpips.LPIPS(net=name, pnet_rand=True, verbose=False).eval()
    for part in (getattr(theirs.net, f"slice{i + 1}") for i in range(theirs.net.N_slices)):
        part.load_state_dict({key: state[key] for key in part.state_dict()})
    ours = load_perceptual(backbone, tmp_path / "backbone.pth")
    images, other = draw(3, 3, 64, 48).requires_grad_(), draw(3, 3, 64, 48, seed=1)

    result, expected = ours(images, other), theirs(images, other).flatten()

    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    assert result.std() > 0
    slopes = [torch.autograd.grad(distance.sum(), images)[0] for distance in (result, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_linear_layers_are_bundled_and_not_negative(backbone: Backbone) -> None:
    """One vector for each slice, with the number of its channels."""
    layers = load_linear_layers(BACKBONES[backbone].linear)

    widths = {
        "vgg16": [64, 128, 256, 512, 512],
        "alexnet": [64, 192, 384, 256, 256],
        "squeezenet": [64, 128, 256, 384, 384, 512, 512],
    }
    assert [len(layer) for layer in layers] == widths[backbone]
    assert all((layer >= 0).all() for layer in layers)


def test_hashes_sizes_and_names_belong_together() -> None:
    """A name ends with the first letters of its hash; sizes are told in units of 2**20 bytes."""
    for known in BACKBONES.values():
        assert known.file_name == f"{known.file_name.rpartition('-')[0]}-{known.sha256[:8]}.pth"
        assert len(known.sha256) == 64
    assert [f"{known.megabytes:g}" for known in BACKBONES.values()] == ["528", "233", "4.7"]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a file in torch's cache and let it be the one that torchvision publishes for squeezenet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = hub_file("squeezenet")
    path.parent.mkdir(parents=True)
    write_backbone("squeezenet", path)
    content = path.read_bytes()
    known = replace(BACKBONES["squeezenet"], num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(BACKBONES, "squeezenet", known)
    return path


def test_the_published_file_passes(published: Path) -> None:
    """In torch's cache, and where it is named."""
    assert check_weights("squeezenet") == published
    assert check_weights("squeezenet", published) == published


def test_a_cut_or_changed_file_is_refused_before_it_is_used(published: Path) -> None:
    """One bit of one weight is enough, which torch itself would not see."""
    content = bytearray(published.read_bytes())
    published.write_bytes(content[:-100])
    with pytest.raises(
        DownloadError, match=r"b8a52dc0\.pth has \d+ bytes, expected .*`latentart weights fetch squeezenet`"
    ):
        check_weights("squeezenet")

    content[len(content) // 2] ^= 1
    published.write_bytes(content)

    load_perceptual("squeezenet")
    with pytest.raises(DownloadError, match=r"b8a52dc0\.pth .*its checksum \(SHA-256\) does not match"):
        check_weights("squeezenet")
    with pytest.raises(DownloadError, match=r"does not match\. Fetch the file again\."):
        check_weights("squeezenet", published)


def test_a_file_of_ones_own_has_to_fit_and_no_more(published: Path, tmp_path: Path) -> None:
    """Under another name it may hold other weights, but only of that network, and it has to be readable."""
    own = tmp_path / "own.pth"
    write_backbone("squeezenet", own)
    state = torch.load(own)
    torch.save({name: 2 * value for name, value in state.items()}, own)
    assert check_weights("squeezenet", own) == own

    shutil.copy(published, own)
    with pytest.raises(DownloadError, match=r"own\.pth does not hold the weights of alexnet"):
        check_weights("alexnet", own)
    own.write_bytes(own.read_bytes()[:-100])
    with pytest.raises(DownloadError, match=r"own\.pth cannot be read as PyTorch weights"):
        check_weights("squeezenet", own)
    own.unlink()
    with pytest.raises(DownloadError, match=r"no such file at .*own\.pth"):
        check_weights("squeezenet", own)


def test_a_file_of_another_backbone_is_refused(tmp_path: Path) -> None:
    """The message names the file and what was expected."""
    write_backbone("squeezenet", tmp_path / "backbone.pth")

    expected = r"backbone\.pth does not hold the weights of alexnet.*alexnet-owt-7be5be79"
    with pytest.raises(DownloadError, match=expected):
        load_perceptual("alexnet", tmp_path / "backbone.pth")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04cut", b"\x80\x02}q\x00"])
def test_a_broken_file_is_one_short_line(tmp_path: Path, content: bytes) -> None:
    """Empty, a web page, a cut download: a DownloadError that names the file, and never advice to trust it."""
    path = tmp_path / "backbone.pth"
    path.write_bytes(content)

    with pytest.raises(DownloadError, match=r"backbone\.pth cannot be read as PyTorch weights") as caught:
        load_perceptual("squeezenet", path)

    assert "weights_only" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


class Exploit:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_file_never_runs(tmp_path: Path) -> None:
    """A pickle that holds code is refused, in torch's format and as it is."""
    trap = tmp_path / "trap"
    torch.save({"features.0.weight": Exploit(trap)}, tmp_path / "saved.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Exploit(trap)))

    for name in ("saved.pth", "plain.pth"):
        with pytest.raises(DownloadError, match="cannot be read as PyTorch weights"):
            load_perceptual("squeezenet", tmp_path / name)

    assert not trap.exists()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """Sound, but no named tensors."""
    torch.save([1, 2, 3], tmp_path / "list.pth")

    with pytest.raises(DownloadError, match="something else than named tensors"):
        load_perceptual("squeezenet", tmp_path / "list.pth")


def test_missing_weights_say_which_file_its_size_where_and_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything one needs to go on is in the message."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    with pytest.raises(DownloadError) as caught:
        load_perceptual("vgg16")

    parts = [
        *("vgg16-397923af.pth", "528 MB", str(tmp_path / "hub" / "checkpoints")),
        *("`latentart weights fetch vgg16`", "vae.perceptual.weights=PATH", "vae.perceptual.backbone=random"),
    ]
    places = [str(caught.value).find(part) for part in parts]
    assert -1 not in places
    assert places[3:] == sorted(places[3:])


def test_a_named_file_that_is_missing_is_the_one_reported(tmp_path: Path) -> None:
    """Not the place in the cache, to which a fetched file would go."""
    with pytest.raises(DownloadError, match=r"no such file at .*mine\.pth.* and set vae\.perceptual\.weights=null"):
        find_weights("alexnet", tmp_path / "mine.pth")


def test_torch_home_is_honored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file lies where torch itself would put it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    path.parent.mkdir(parents=True)
    write_backbone("squeezenet", path)

    assert find_weights("squeezenet") == path
    assert load_perceptual("squeezenet")(draw(1, 3, 32, 32), draw(1, 3, 32, 32)).item() == 0


@pytest.mark.parametrize("variables", [{"TORCH_HOME": "/a"}, {"XDG_CACHE_HOME": "/b"}, {}])
def test_the_cache_is_where_torch_keeps_its_own(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """With any of the variables set, our folder is torch.hub's."""
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_relu_layers_do_not_write_into_the_features_they_follow(tmp_path: Path) -> None:
    """What a slice returned stays as it is while the next one runs."""
    write_backbone("alexnet", tmp_path / "backbone.pth")
    distance = load_perceptual("alexnet", tmp_path / "backbone.pth")

    assert not any(layer.inplace for layer in distance.modules() if isinstance(layer, nn.ReLU))
