"""What is left of the memory, and what a forward pass keeps of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from latentart.process.host_memory import activation_bytes, available_bytes, peak_bytes

CPU = torch.device("cpu")
MEMINFO = "MemTotal:       24684092 kB\nMemFree:         100 kB\nMemAvailable:    2000 kB\n"


def write(root: Path, files: dict[str, str]) -> Path:
    """Write the system's files below a root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, None),
        ({"proc/meminfo": MEMINFO}, 2_048_000),
        ({"proc/meminfo": "nonsense"}, None),
        (
            {"proc/meminfo": MEMINFO, "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "5"},
            2_048_000,
        ),
        (
            {"proc/meminfo": MEMINFO, "sys/fs/cgroup/memory.max": "900000\n", "sys/fs/cgroup/memory.current": "500000"},
            400_000,
        ),
        (
            {
                "sys/fs/cgroup/memory.max": "900000",
                "sys/fs/cgroup/memory.current": "500000",
                "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 200000\n",
            },
            600_000,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "300000",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "400000",
            },
            0,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "5",
            },
            2_048_000,
        ),
    ],
)
def test_the_least_of_machine_and_container_is_left(tmp_path: Path, files: dict[str, str], left: int | None) -> None:
    """Both kinds of control groups are read; one without a limit says nothing, and cached files do not count."""
    assert available_bytes(CPU, write(tmp_path, files)) == left


def test_what_a_linear_layer_and_a_relu_keep() -> None:
    """The layer keeps its input, the ReLU its output; the weights are there anyway."""
    layer = nn.Linear(8, 4)
    x = torch.ones(3, 8)

    kept = activation_bytes(lambda: layer(x).relu(), layer.parameters())

    assert kept == (3 * 8 + 3 * 4) * 4


def test_memory_that_is_shared_counts_once() -> None:
    """A square keeps one tensor and not two, and views of one tensor are that tensor."""
    weight = torch.ones(5, requires_grad=True)

    def forward() -> Tensor:
        y = weight * torch.arange(5.0)
        return y * y + y[:2].sum() * y[0]

    kept = activation_bytes(forward, [weight])

    # arange and y, the sum of a view and its factor; not twice y, and not the weight
    assert kept == 5 * 4 + 5 * 4 + 4


def test_the_peak_is_at_least_what_is_held_now() -> None:
    """A process that holds 32 MB has had them at its peak."""
    held = torch.ones(8 * 2**20)

    peak = peak_bytes(CPU)

    assert peak is not None
    assert peak > held.nbytes
