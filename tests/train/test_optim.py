"""Optimisers and schedules against what they are defined by."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from riallm.core.errors import UsageError
from riallm.models.ria import RIA
from riallm.models.zoo import nano
from riallm.train.optim import AdamW, Muon, OptimiserConfig, groups, optimisers, orthogonalised, set_factor
from riallm.train.schedule import Schedule

TINY = nano(hidden=128, layers=1, inner=128, vocab=50, context=16)


@pytest.mark.parametrize("shape", [(64, 64), (96, 32), (32, 96)])
def test_newton_schulz_brings_all_singular_values_near_one(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=draw))
    right, _ = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=draw))
    matrix = left @ torch.diag(torch.linspace(0.05, 1.0, min(shape))) @ right.T
    values = torch.linalg.svdvals(orthogonalised(matrix).float())
    assert values.min() > 0.5 and values.max() < 1.4


def test_adamw_without_caution_is_torchs() -> None:
    results = []
    for kind in ("ours", "torch"):
        torch.manual_seed(0)
        layer = nn.Linear(6, 4)
        made: torch.optim.Optimizer = (
            AdamW(layer.parameters(), lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, cautious=False)
            if kind == "ours"
            else torch.optim.AdamW(layer.parameters(), lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
        )
        for step in range(5):
            layer(torch.full((2, 6), float(step))).square().sum().backward()
            made.step()
            made.zero_grad()
        results.append(layer.weight.detach().clone())
    torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=1e-5)


def test_cautious_decay_acts_only_along_the_update() -> None:
    weight = nn.Parameter(torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
    made = AdamW([weight], lr=0.1, betas=(0.0, 0.0), eps=1e-8, weight_decay=0.5, cautious=True)
    weight.grad = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    made.step()
    torch.testing.assert_close(weight.detach()[0], torch.tensor([1.0 - 0.05 - 0.1, 1.0 + 0.1]))


def test_muon_moves_by_its_learning_rate() -> None:
    weight = nn.Parameter(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))
    before = weight.detach().clone()
    weight.grad = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)))[0] * 1e-4
    Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.0, cautious=False).step()
    moved = torch.linalg.svdvals((weight.detach() - before) / 0.1)
    assert moved.min() > 0.5 and moved.max() < 1.4


def test_every_parameter_belongs_to_one_group() -> None:
    model = RIA(TINY)
    parts = groups(model)
    sizes = [sum(p.numel() for p in part) for part in (parts.matrices, parts.embeddings, parts.others)]
    assert sum(sizes) == sum(p.numel() for p in model.parameters())
    assert sizes[1] == TINY.vocab_size * TINY.hidden_size
    assert all(p.ndim == 2 for p in parts.matrices)
    names = {id(p): name for name, p in model.named_parameters()}
    assert "layers.0.self_attn.alpha" in {names[id(p)] for p in parts.others}


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_the_factor_scales_every_learning_rate(kind: str) -> None:
    made = optimisers(RIA(TINY), OptimiserConfig(kind=kind))  # type: ignore[arg-type]
    full = [group["lr"] for each in made for group in each.param_groups]
    set_factor(made, 0.25)
    assert [group["lr"] for each in made for group in each.param_groups] == [0.25 * lr for lr in full]


def test_the_schedules_rise_stay_and_fall() -> None:
    wsd = Schedule(warmup=0.1, decay=0.5, final=0.1)
    assert [round(wsd.factor(at), 3) for at in (0.05, 0.1, 0.5, 0.75, 1.0)] == [0.5, 1.0, 1.0, 0.55, 0.1]
    cosine = Schedule(kind="cosine", warmup=0.1, final=0.0)
    assert [round(cosine.factor(at), 3) for at in (0.05, 0.1, 0.55, 1.0)] == [0.5, 1.0, 0.5, 0.0]
    assert wsd.factor(0.0) > 0.0
    with pytest.raises(UsageError, match="together at most 1"):
        Schedule(warmup=0.6, decay=0.6)


def test_matrices_of_one_shape_move_as_each_would_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=draw) for shape in ((24, 16), (16, 16), (24, 16))]
    gradients = [torch.randn(value.shape, generator=draw) for value in values]

    def moved(numbers: list[int]) -> list[torch.Tensor]:
        weights = [nn.Parameter(values[number].clone()) for number in numbers]
        made = Muon(weights, lr=0.1, momentum=0.9, weight_decay=0.1, cautious=True)
        for _ in range(2):
            for weight, number in zip(weights, numbers, strict=True):
                weight.grad = gradients[number]
            made.step()
        return [weight.detach() for weight in weights]

    together = moved([0, 1, 2])
    for number in range(3):
        torch.testing.assert_close(together[number], moved([number])[0], atol=1e-3, rtol=0.0)
