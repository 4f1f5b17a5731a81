"""Muon: momentum made orthogonal for the matrices inside a network, and AdamW for all the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

MOMENTUM = 0.95
ADAMW_RMS = 0.2
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_ENDS = {"conv_in", "conv_out", "patch_in", "patch_out"}


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return about the nearest orthogonal matrix, U Vᵀ of X = U S Vᵀ: five Newton-Schulz steps X ← aX + (bA + cA²)X.

    A = XXᵀ and (a, b, c) of Jordan et al. 2024 (kellerjordan.github.io/posts/muon), which bring singular values
    not to 1 but quickly to between 0.7 and 1.2. Shape [out, in]; bfloat16 on a GPU, as there.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x


def inner_matrices(network: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the weights that Muon trains: of linear layers and ungrouped convolutions, but for the first and last."""
    for name, layer in network.named_modules():
        is_whole = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
        if is_whole and name.rpartition(".")[2] not in _ENDS and layer.weight.requires_grad:
            assert isinstance(layer.weight, nn.Parameter)
            yield layer.weight


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for groups with ``is_muon``, AdamW (Loshchilov & Hutter 2019) for the others.

    A kernel counts as the matrix ``[out, in·k·k]`` that it is to the patches it meets. The update U Vᵀ is scaled by
    0.2·√max(out, in·k·k), to the root mean square that AdamW's usually has, so that both take the same learning
    rates and decays (Liu et al. 2502.16982, equation 4).
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float]) -> None:
        # fused is read by load_state_dict too: AdamW's steps then stay float32 on the device
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0, "is_muon": False, "fused": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make one update of every weight that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if group["is_muon"]:
                self._step_muon(group, weights)
            elif weights:
                self._step_adamw(group, weights)

    def _step_muon(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        for weight in weights:
            assert weight.grad is not None
            state = self.state[weight]
            momentum = state.setdefault("momentum", torch.zeros_like(weight))
            momentum.lerp_(weight.grad, 1 - MOMENTUM)
            update = weight.grad.lerp(momentum, MOMENTUM)  # Nesterov's look ahead
            matrix = update.flatten(1)
            scale: float = ADAMW_RMS * max(matrix.shape) ** 0.5
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(orthogonalize(matrix).to(weight).view(weight.shape), alpha=-group["lr"] * scale)

    def _step_adamw(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        for weight in weights:
            if not self.state[weight]:
                first, second = torch.zeros_like(weight), torch.zeros_like(weight)
                step = torch.zeros((), device=weight.device)
                self.state[weight].update(step=step, exp_avg=first, exp_avg_sq=second)
        states = [self.state[weight] for weight in weights]
        adamw(
            weights,
            [weight.grad for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def build_muon(
    network: nn.Module, *, lr: float, muon_lr: float, betas: tuple[float, float], weight_decay: float
) -> Muon:
    """Return Muon over a network; biases, norms, embeddings and the first and last layers are AdamW's.

    Raises:
        ValueError: no weight wants a gradient.
    """
    matrices = list(inner_matrices(network))
    inner = {id(weight) for weight in matrices}
    others = [weight for weight in network.parameters() if weight.requires_grad and id(weight) not in inner]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay, "is_muon": True, "lr_scale": muon_lr / lr},
        {"params": [weight for weight in others if weight.ndim >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in others if weight.ndim < 2]},
    ]
    return Muon([group for group in groups if group["params"]], lr=lr, betas=betas)
