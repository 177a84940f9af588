"""Adapters against models with the change merged in; hooks, refusals, steady rows, and training over packed weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from riallm.core.errors import UsageError
from riallm.models import resident
from riallm.models.decoder import Decoder
from riallm.models.llama import Llama, LlamaConfig
from riallm.models.ria import RIA
from riallm.models.zoo import nano
from riallm.nn.adapter import Adapter, LowRank
from riallm.nn.meta import TokenMeta

LLAMA = LlamaConfig(
    vocab_size=61,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=64,
    attention_bias=True,
    output_bias=True,
)


def ria() -> RIA:
    made = RIA(replace(nano(hidden=128, layers=2, inner=128, vocab=61, context=64), zero_output=False))
    made.initialise(seed=1)
    return made.eval()


def llama() -> Llama:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Llama(LLAMA).eval()


@pytest.fixture(params=[ria, llama])
def model(request: pytest.FixtureRequest) -> Decoder:
    made: Decoder = request.param()
    return made


def adapter_for(model: Decoder, *, only: Sequence[str] | None = None, rank: int = 3, seed: int = 0) -> Adapter:
    draw = torch.Generator().manual_seed(seed)
    tensors = {
        hook: LowRank(
            down=torch.randn(rank, inputs, generator=draw) * inputs**-0.5,
            up=torch.randn(outputs, rank, generator=draw) * 0.5,
        )
        for hook, (outputs, inputs) in model.hooks().items()
        if only is None or hook in only
    }
    return Adapter(name="test", version=1, tensors=tensors)


def hidden(model: Decoder, adapter: Adapter | None = None) -> torch.Tensor:
    tokens = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(5))
    found: torch.Tensor = model(tokens, TokenMeta.plain(2, 20), adapter=adapter).hidden
    return found


@pytest.mark.parametrize("grad", [True, False])
def test_an_adapter_is_the_change_merged_into_the_weights(model: Decoder, grad: bool) -> None:
    adapter = adapter_for(model)
    with torch.set_grad_enabled(grad):
        found, before = hidden(model, adapter), hidden(model)
    with torch.no_grad():
        for hook, low in adapter.tensors.items():
            model.get_parameter(f"{hook}.weight").add_(low.up @ low.down)
    torch.testing.assert_close(found, hidden(model), atol=2e-5, rtol=1e-5)
    assert not torch.allclose(found, before, atol=0.1)


def test_every_hook_reaches_its_map(model: Decoder) -> None:
    hooks = model.hooks()
    wanted = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj"}
    assert {f"layers.{layer}.{name}" for layer in range(2) for name in wanted | {"mlp.down_proj"}} <= hooks.keys()
    with torch.no_grad():
        before = hidden(model)
        for hook in hooks:
            assert not torch.equal(hidden(model, adapter_for(model, only=[hook])), before), hook


def test_without_one_nothing_changes_by_a_bit(model: Decoder) -> None:
    tokens, meta = torch.arange(20)[None], TokenMeta.plain(1, 20)
    later = adapter_for(model, only=["layers.1.mlp.down_proj"])
    with torch.no_grad():
        plain = model(tokens, meta, taps=(0, 1))
        empty = model(tokens, meta, adapter=adapter_for(model, only=[]), taps=(0, 1))
        changed = model(tokens, meta, adapter=later, taps=(0, 1))
    assert torch.equal(plain.hidden, empty.hidden) and torch.equal(plain.taps[0], changed.taps[0])
    assert not torch.equal(plain.taps[1], changed.taps[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("inputs", "outputs", "rank"), [(2048, 96, 8), (77, 33, 1), (1, 1, 5)])
def test_a_row_has_the_same_bits_in_any_company(dtype: torch.dtype, inputs: int, outputs: int, rank: int) -> None:
    draw = torch.Generator().manual_seed(0)
    low = LowRank(down=torch.randn(rank, inputs, generator=draw), up=torch.randn(outputs, rank, generator=draw))
    x = torch.randn(2, 70, inputs, generator=draw).to(dtype)
    x[0, 3] = 0.0
    x[1, 5, 0] = float("nan")
    with torch.no_grad():
        together = low(x)
        alone = torch.stack([torch.stack([low(row) for row in each]) for each in x])
        frozen = low.frozen("cpu")(x)
    assert together.dtype == dtype and together.shape == (2, 70, outputs)
    torch.testing.assert_close(together, alone, rtol=0.0, atol=0.0, equal_nan=True)
    torch.testing.assert_close(together, frozen, rtol=0.0, atol=0.0, equal_nan=True)
    plain = F.linear(F.linear(x.float(), low.down), low.up).to(dtype)
    near = {"rtol": 1e-5, "atol": 1e-5 * inputs**0.5 * rank} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-2}
    torch.testing.assert_close(together, plain, **near, equal_nan=True)
    assert together[1, 5].isnan().all() and not together[1, 4].isnan().any()


def test_what_does_not_fit_is_refused_with_both_shapes() -> None:
    made = llama()
    hooks = made.hooks()
    adapter_for(made).check(hooks)

    def refused(hook: str, down: tuple[int, int], up: tuple[int, int], match: str) -> None:
        low = LowRank(down=torch.ones(down), up=torch.ones(up))
        with pytest.raises(UsageError, match=match):
            Adapter(name="x", version=3, tensors={hook: low}).check(hooks)

    hook = "layers.1.mlp.down_proj"
    says = (
        r"adapter x version 3: layers.1.mlp.down_proj is a map of \(64, 96\); got down \({}\) and up \({}\), "
        r"expected \(2, 96\) and \(64, 2\)"
    )
    refused(hook, (2, 95), (64, 2), says.format("2, 95", "64, 2"))
    refused(hook, (2, 96), (96, 2), says.format("2, 96", "96, 2"))
    refused("layers.2.mlp.down_proj", (2, 96), (64, 2), "the model has no hook layers.2.mlp.down_proj; one of them is")
    refused("lm_head", (2, 64), (61, 2), "no hook lm_head")
    with pytest.raises(UsageError, match="of the same rank, at least 1"):
        LowRank(down=torch.ones(2, 96), up=torch.ones(64, 3))
    with pytest.raises(UsageError, match="of the same rank, at least 1"):
        LowRank(down=torch.ones(0, 96), up=torch.ones(64, 0))
    broken = adapter_for(made, only=[hook])
    broken.tensors[hook].up[3, 1] = float("inf")
    with pytest.raises(UsageError, match="hold what is no number, or infinite"):
        broken.check(hooks)


def test_an_identity_tells_name_version_and_tensors_apart() -> None:
    made = llama()
    one, other = sorted(made.hooks())[:2]
    adapter = adapter_for(made, only=[one])
    low = adapter.tensors[one]
    changed = LowRank(down=low.down.clone(), up=low.up.clone())
    changed.up[0, 0] += 1e-3
    others = [
        replace(adapter, version=2),
        replace(adapter, name="y"),
        replace(adapter, tensors={one: changed}),
        replace(adapter, tensors={other: low}),
        replace(adapter, tensors={}),
    ]
    assert len({each.identity() for each in [adapter, *others]}) == 6
    assert adapter_for(made, only=[one]).identity() == adapter.identity()


def test_a_frozen_copy_is_nobody_else_s() -> None:
    made = llama()
    adapter = adapter_for(made)
    kept = adapter.frozen()
    identity = kept.identity()
    assert identity == adapter.identity()
    with torch.no_grad():
        before = hidden(made, kept)
        for low in adapter.tensors.values():
            low.up.zero_()
        assert torch.equal(hidden(made, kept), before) and kept.identity() == identity != adapter.identity()


@pytest.mark.parametrize("kind", ["int4", "nf4"])
def test_an_adapter_learns_over_packed_weights(kind: str) -> None:
    config = replace(nano(hidden=128, layers=2, inner=128, vocab=61, context=64), zero_output=False)
    made = resident.random_of(config, "tiny", kind=kind, dtype="float32").model  # type: ignore[arg-type]
    adapter = adapter_for(made, only=[hook for hook in made.hooks() if hook.endswith(("q_proj", "down_proj"))])
    parameters = [each.requires_grad_() for low in adapter.tensors.values() for each in (low.down, low.up)]
    assert len(parameters) == 8
    with torch.no_grad():
        for low in adapter.tensors.values():
            low.up.zero_()
    tokens = torch.randint(0, 61, (2, 33), generator=torch.Generator().manual_seed(5))
    optimiser = torch.optim.Adam(parameters, lr=0.02)
    losses = []
    for _ in range(12):
        logits = made.logits(made(tokens[:, :-1], TokenMeta.plain(2, 32), adapter=adapter).hidden)
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        assert all(each.grad is not None for each in parameters)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5, losses
    assert all(each.grad is None for each in made.parameters())
    with torch.no_grad():  # without gradients the same is computed in another way
        logits = made.logits(made(tokens[:, :-1], TokenMeta.plain(2, 32), adapter=adapter).hidden)
        assert F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item() < losses[-1] + 0.05
