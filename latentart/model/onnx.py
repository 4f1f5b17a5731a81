"""Networks as ONNX: how one is written, and onnxruntime that runs it on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.quantizer import vectors_of
from latentart.errors import DownloadError, extra

OPSET = 18  # of 2022
LEAST_HALVED = 64  # numbers of a weight; fewer are not worth an operation


class Encode(nn.Module):
    """An autoencoder's way in, as a network of its own."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> Tensor:
        """Return the moments ``[B, 2Z, h, w]`` of images ``[B, 3, H, W]`` in -1…1."""
        return self.autoencoder.encode(images)


class Decode(nn.Module):
    """An autoencoder's way out, as a network of its own."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, z: Tensor) -> Tensor:
        """Return images ``[B, 3, H, W]`` of latents ``[B, Z, h, w]`` at the autoencoder's own scale."""
        quantizer = self.autoencoder.quantizer
        if quantizer is not None:  # at once, as what is split has a fixed number of parts in ONNX
            code_ids = quantizer.nearest_of(vectors_of(z)).view(z.shape[0], *z.shape[2:])
            z = functional.embedding(code_ids, quantizer.get_buffer("codes")).permute(0, 3, 1, 2)
        return self.autoencoder.render(z)


def require_onnx() -> None:
    """Refuse where onnx or onnxruntime is not installed.

    Raises:
        DownloadError: so it is.
    """
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise DownloadError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed.",
            f"Run {extra('onnx')}.",
        )


def write_onnx(network: nn.Module, inputs: Mapping[str, Tensor], output: str, path: Path) -> None:
    """Write a network as ONNX, for batches of any size and maps of the size of ``inputs``."""
    names = [*inputs, output]
    with _all_operations(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer: sizes that it fixes, and that a newer one is there
        # the newer one takes 20 times as long, asks for a package more, and what it writes is slower
        torch.onnx.export(
            network.eval(),
            tuple(inputs.values()),
            path,
            dynamo=False,
            input_names=[*inputs],
            output_names=[output],
            dynamic_axes={name: {0: "batch"} for name in names},
            opset_version=OPSET,
        )


def halve_weights(path: Path) -> None:
    """Write the weights of a network as float16, half as many bytes; each is cast back as it is read."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    network = onnx.load(path)
    graph, casts = network.graph, []
    for weight in graph.initializer:
        with np.errstate(over="ignore"):
            half = numpy_helper.to_array(weight).astype(np.float16) if weight.data_type == TensorProto.FLOAT else None
        if half is None or half.size < LEAST_HALVED or not np.isfinite(half).all():
            continue
        name = f"{weight.name}.half"
        casts.append(helper.make_node("Cast", [name], [weight.name], to=TensorProto.FLOAT))
        weight.CopyFrom(numpy_helper.from_array(half, name))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(network, path)


def open_session(path: Path) -> Any:
    """Return the onnxruntime session of a network, with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return what a session makes of CPU tensors."""
    return torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0])


@contextmanager
def _all_operations() -> Iterator[None]:
    """Teach the tracer's writer the operations of our networks that it has no form for."""
    known: dict[str, Callable[..., Any]] = {
        "aten::mT": lambda graph, x: graph.op("Transpose", x, perm_i=[0, 1, 3, 2]),
        "aten::rms_norm": lambda graph, x, _shape, weight, _eps: graph.op("Mul", _over_root(graph, x), weight),
        "aten::layer_norm": lambda graph, x, _shape, _weight, _bias, eps, _fast: _over_root(
            graph, graph.op("Sub", x, _mean(graph, x)), eps
        ),
    }
    for name, form in known.items():
        torch.onnx.register_custom_op_symbolic(name, form, OPSET)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name in known:
            torch.onnx.unregister_custom_op_symbolic(name, OPSET)  # type: ignore[attr-defined]


def _over_root(graph: Any, x: Any, eps: Any = None) -> Any:
    """Return x / √(mean x² + ε) over the last axis, with PyTorch's own ε where none is given."""
    if eps is None:
        eps = graph.op("Constant", value_t=torch.tensor(torch.finfo(torch.float32).eps))
    square = _mean(graph, graph.op("Mul", x, x))
    return graph.op("Div", x, graph.op("Sqrt", graph.op("Add", square, graph.op("CastLike", eps, x))))


def _mean(graph: Any, x: Any) -> Any:
    return graph.op("ReduceMean", x, graph.op("Constant", value_t=torch.tensor([-1])), keepdims_i=1)
