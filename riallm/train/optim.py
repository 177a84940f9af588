"""Muon for matrices, AdamW for the rest, and which parameter belongs to which.

Muon (Jordan et al. 2024): momentum, then the nearest half-orthogonal matrix by five Newton-Schulz steps. AdamW:
Loshchilov and Hutter 2019. Weight decay is cautious where asked: it acts only where it goes the way of the update.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from riallm.train.parallel import like, whole

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic whose iteration pulls singular values into about [0.7, 1.2]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserConfig:
    """kind "muon": matrices by Muon, embeddings and everything else by AdamW; "adamw": all by AdamW with `lr`.

    lr: of matrices; embedding_lr, scalar_lr: of the AdamW groups under "muon". cautious: see the module.
    """

    kind: Literal["muon", "adamw"] = "muon"
    lr: float = 0.01
    embedding_lr: float = 0.1
    scalar_lr: float = 0.02
    weight_decay: float = 0.1
    cautious: bool = True
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """The half-orthogonal factor of a matrix, roughly: all singular values near one. Computed in bfloat16."""
    a, b, c = _NEWTON_SCHULZ
    x = matrix.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    found: Tensor = x.mT if tall else x
    return found


class Muon(Optimizer):
    """Matrices only. `lr` is the size of an update of a square matrix; tall ones get sqrt(rows / columns) of it."""

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float, cautious: bool
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "cautious": cautious})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the gradients."""
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(tuple(parameter.shape), []).append(parameter)
            for parameters in alike.values():
                self._update(parameters, group)

    def _update(self, parameters: Sequence[nn.Parameter], group: dict[str, Any]) -> None:
        """Matrices of one shape, together: each alone would have a GPU wait for the program between small products."""
        aims = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            assert parameter.grad is not None
            state["momentum"].lerp_(parameter.grad, 1.0 - group["momentum"])
            aims.append(whole(parameter.grad.lerp(state["momentum"], group["momentum"])))  # a shard has no factor
        scale = max(1.0, aims[0].shape[0] / aims[0].shape[1]) ** 0.5
        for parameter, matrix in zip(parameters, orthogonalised(torch.stack(aims)), strict=True):
            update = like(matrix.to(parameter.dtype) * scale, parameter)
            decay(parameter, update, group)
            parameter.sub_(update, alpha=group["lr"])


class AdamW(Optimizer):
    """AdamW with cautious weight decay; the state is kept in the parameter's type."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        cautious: bool,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "cautious": cautious}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the gradients."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                state["step"] += 1
                mean, square = state["mean"], state["square"]
                mean.lerp_(parameter.grad, 1.0 - beta1)
                square.lerp_(parameter.grad.square(), 1.0 - beta2)
                scale = square.div(1.0 - beta2 ** state["step"]).sqrt_().add_(group["eps"])
                update = mean.div(1.0 - beta1 ** state["step"]).div_(scale)
                decay(parameter, update, group)
                parameter.sub_(update, alpha=group["lr"])


def decay(parameter: Tensor, update: Tensor, group: dict[str, Any]) -> None:
    """Shrink the parameter by lr * weight_decay; cautiously: only where the update shrinks it too."""
    rate = group["lr"] * group["weight_decay"]
    if not rate:
        return
    if group["cautious"]:
        parameter.sub_(parameter * ((update * parameter) > 0), alpha=rate)
    else:
        parameter.mul_(1.0 - rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Parameters by how they are trained."""

    matrices: list[nn.Parameter]
    embeddings: list[nn.Parameter]
    others: list[nn.Parameter]


def groups(model: nn.Module) -> Groups:
    """Matrices of linear maps, embeddings and untied heads, and everything smaller; frozen parameters are left out."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    embeddings |= {id(p) for name, p in model.named_parameters() if name.endswith("lm_head.weight")}
    found = Groups(matrices=[], embeddings=[], others=[])
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in embeddings:
            found.embeddings.append(parameter)
        elif parameter.ndim == 2 and min(parameter.shape) > 1 and not name.endswith("alpha"):
            found.matrices.append(parameter)
        else:
            found.others.append(parameter)
    return found


def optimisers(model: nn.Module, config: OptimiserConfig) -> list[Optimizer]:
    """One or two optimisers over all trainable parameters; small ones are never decayed."""
    parts = groups(model)
    adam = {"betas": (config.beta1, config.beta2), "eps": config.eps, "cautious": config.cautious}

    def adamw(params: list[nn.Parameter], lr: float, weight_decay: float) -> dict[str, Any]:
        return {"params": params, "lr": lr, "weight_decay": weight_decay, **adam}

    if config.kind == "adamw":
        decayed = adamw(parts.matrices + parts.embeddings, config.lr, config.weight_decay)
        made: list[Optimizer] = [_adamw([decayed, adamw(parts.others, config.lr, 0.0)])]
    else:
        small = [
            adamw(parts.embeddings, config.embedding_lr, config.weight_decay * config.lr / config.embedding_lr),
            adamw(parts.others, config.scalar_lr, 0.0),
        ]
        muon = Muon(
            parts.matrices,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            cautious=config.cautious,
        )
        made = [muon, _adamw(small)]
    for optimiser in made:
        for group in optimiser.param_groups:
            group["full_lr"] = group["lr"]
    return made


def _adamw(parts: list[dict[str, Any]]) -> AdamW:
    kept = [part for part in parts if part["params"]]
    first = kept[0]
    return AdamW(
        kept,  # type: ignore[arg-type]
        lr=first["lr"],
        betas=first["betas"],
        eps=first["eps"],
        weight_decay=first["weight_decay"],
        cautious=first["cautious"],
    )


def set_factor(made: Iterable[Optimizer], factor: float) -> None:
    """Every learning rate becomes `factor` times its full value."""
    for optimiser in made:
        for group in optimiser.param_groups:
            group["lr"] = group["full_lr"] * factor
