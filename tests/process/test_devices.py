"""Devices and precision: bf16 only where the processor has it, and a clear no to what is not there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from latentart.errors import ResourceError
from latentart.process.devices import Placement, choose_device, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({}, "fp32"),
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
    ],
)
def test_auto_takes_bf16_only_where_the_cpu_has_instructions(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any], expected: str
) -> None:
    """Emulated bf16 would be ten times slower than float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)

    assert resolve_precision("auto", CPU) == expected


def test_auto_is_float32_where_torch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older torch does not know the processor's abilities."""
    monkeypatch.delattr(torch.cpu, "get_capabilities")

    assert resolve_precision("auto", CPU) == "fp32"


def test_torch_names_the_abilities_we_ask_for() -> None:
    """The two keys exist on an x86 processor; otherwise auto would silently be float32 for ever."""
    capabilities = torch.cpu.get_capabilities()

    assert capabilities.get("architecture") != "x86_64" or {"avx512_bf16", "amx_bf16"} <= capabilities.keys()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_named_precision_is_taken_as_it_is(precision: Any) -> None:
    """The user may know better."""
    assert resolve_precision(precision, CPU) == precision
    assert resolve_precision(precision, torch.device("cuda")) == precision


@pytest.mark.parametrize("name", ["banana", "cuda:99", "hpu", "vulkan", "meta", "", "cpu:x"])
def test_an_unusable_device_is_one_short_line(name: str) -> None:
    """Unknown, absent or without memory: a ResourceError that names it and says where to look."""
    with pytest.raises(ResourceError, match=f"device '{name}' cannot be used: ") as caught:
        choose_device(name)

    assert "latentart doctor" in caught.value.hint
    assert len(caught.value.message) < 300
    assert "\n" not in caught.value.message


def test_the_cpu_is_a_device() -> None:
    """Named, it is taken."""
    assert choose_device("cpu") == CPU


def test_without_an_accelerator_the_cpu_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing named, nothing else there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    assert choose_device() == CPU


@pytest.mark.parametrize("name", [None, "cuda"])
def test_each_of_torchrun_s_processes_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    """The one of its number on this machine; where there are fewer GPUs than processes the line names it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for variable, value in {"RANK": "99", "WORLD_SIZE": "100", "LOCAL_RANK": "99"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")

    with pytest.raises(ResourceError, match="device 'cuda:99' cannot be used: "):
        choose_device(name)

    assert choose_device("cpu") == CPU


def test_sending_to_the_cpu_copies_nothing() -> None:
    """A tensor that is there already stays itself."""
    tensor = torch.ones(3)

    assert Placement(CPU, "fp32").send(tensor) is tensor


@pytest.mark.gpu
def test_what_is_sent_to_a_gpu_arrives_whole() -> None:
    """Also when its source goes before the copy has run."""
    placement = Placement(torch.device("cuda"), "fp32")

    sent = [placement.send(torch.full((1 << 20,), float(number))) for number in range(20)]

    assert [float(tensor.mean()) for tensor in sent] == list(range(20))


def test_weights_stay_float32_under_bf16() -> None:
    """The forward pass is in bf16, the parameters are not."""
    placement = Placement(CPU, "bf16")
    layer = placement.place(nn.Linear(4, 4))

    with placement.autocast():
        out = layer(torch.ones(1, 4))

    assert out.dtype == torch.bfloat16
    assert next(layer.parameters()).dtype == torch.float32


def test_bf16_convolutions_lie_channels_last() -> None:
    """The layout that their kernels want; float32 keeps the one of before, bit for bit."""
    layers = [Placement(CPU, precision).place(nn.Conv2d(4, 8, 3)) for precision in ("bf16", "fp32")]

    is_last = [layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in layers]

    assert is_last == [True, False]


def test_float32_means_float32() -> None:
    """No autocast at all."""
    placement = Placement(CPU, "fp32")

    with placement.autocast():
        out = placement.place(nn.Linear(4, 4))(torch.ones(1, 4))

    assert out.dtype == torch.float32


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "cuda:-1", "nonsense"])
def test_a_device_of_no_kind_is_refused_in_few_words(name: str) -> None:
    """Torch's own line lists two dozen kinds of devices; ours says what may be given."""
    with pytest.raises(ResourceError, match=rf"'{name}' cannot be used: there is none of that name\. Give cpu, cuda,"):
        choose_device(name)
