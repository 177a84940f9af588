"""RIA: sizes as the document counts them, options, and the same numbers whichever way the tokens come."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from riallm.core.config import from_json, override, to_json
from riallm.core.errors import UsageError
from riallm.models.ria import RIA, RIAConfig, written_layers
from riallm.models.zoo import ZOO, build, entry, nano
from riallm.nn.meta import Relation, TokenMeta

TINY = nano(hidden=128, layers=2, inner=256, vocab=97, context=32)


@pytest.fixture(scope="module")
def model() -> RIA:
    made = RIA(dataclasses.replace(TINY, zero_output=False))
    made.initialise(seed=0)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in made.layers:
            block.self_attn.alpha.normal_(generator=draws)  # type: ignore[union-attr, operator]
    return made.eval()


def two_files(num_tokens: int) -> TokenMeta:
    """One row: the second file imports the first, from the middle on."""
    plain = TokenMeta.plain(1, num_tokens)
    files = (torch.arange(num_tokens) >= num_tokens // 2).long()[None]
    relations = torch.tensor([[[Relation.SAME, Relation.NONE], [Relation.IMPORT, Relation.SAME]]], dtype=torch.int64)
    return dataclasses.replace(plain, files=files, relations=relations)


@pytest.mark.parametrize(
    ("name", "billions"), [("ria-1b", 1.30), ("ria-8b", 8.29), ("ria-64b", 55.6), ("ria-128b", 148.3)]
)
def test_the_tiers_count_what_their_dimensions_come_to(name: str, billions: float) -> None:
    config = entry(name).config
    tables = config.num_hidden_layers * written_layers(config) + config.vocab_size * config.hidden_size
    assert tables / 1e9 == pytest.approx(billions, abs=0.051 if billions > 10 else 0.006)
    made = build(name)
    assert next(made.parameters()).is_meta
    assert 1.0 <= made.costs().num_parameters / tables < 1.01  # biases of files, gates and paths: under one percent


def test_the_dual_paths_own_parts_stay_small() -> None:
    for name in (name for name in ZOO if name.startswith("ria-")):
        made = build(name)
        own = sum(p.numel() for n, p in made.named_parameters() if "plan_" in n or "execute_" in n or "path_gate" in n)
        assert own / made.costs().num_parameters < 0.01


def test_a_configuration_goes_to_json_and_back() -> None:
    config = override(entry("ria-8b").config, ["rope_scaling={'kind': 'yarn', 'factor': 4, 'original_context': 8192}"])
    assert from_json(RIAConfig, to_json(config)) == config
    with pytest.raises(UsageError, match="no setting 'hidden'"):
        override(config, ["hidden=3"])
    with pytest.raises(UsageError, match="expected int, got 'wide'"):
        override(config, ["hidden_size=wide"])
    with pytest.raises(UsageError, match="multiple of num_key_value_heads"):
        override(config, ["num_key_value_heads=5"])


def test_in_parts_as_at_once(model: RIA) -> None:
    tokens = torch.randint(0, 97, (1, 24), generator=torch.Generator().manual_seed(2))
    meta = two_files(24)
    whole = model.logits(model(tokens, meta).hidden)
    state, parts = model.empty_state(meta), []
    for first, last in ((0, 7), (7, 8), (8, 24)):
        part = TokenMeta(
            positions=meta.positions[:, first:last],
            segments=meta.segments[:, first:last],
            files=meta.files[:, first:last],
            relations=meta.relations,
        )
        out = model(tokens[:, first:last], part, state)
        assert out.state is not None
        state, parts = out.state, [*parts, model.logits(out.hidden)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)
    assert state.num_tokens == 24
    assert state.num_bytes == 24 * sum(spec.bytes_per_token for spec in model.state_specs())


def test_a_fork_and_a_truncation_leave_the_prefix_alone(model: RIA) -> None:
    tokens = torch.randint(0, 97, (1, 12), generator=torch.Generator().manual_seed(3))
    meta = TokenMeta.plain(1, 12)
    out = model(tokens, meta, model.empty_state(meta))
    assert out.state is not None
    forked = out.state.expanded(3)
    more = torch.randint(0, 97, (3, 4), generator=torch.Generator().manual_seed(4))
    rows = model(more, TokenMeta.plain(3, 4, start=12), forked).hidden
    for row in range(3):
        alone = model(torch.cat((tokens, more[row : row + 1]), dim=1), TokenMeta.plain(1, 16)).hidden[:, 12:]
        torch.testing.assert_close(rows[row : row + 1], alone, atol=1e-4, rtol=1e-4)
    short = out.state.truncated(5)
    again = model(tokens[:, 5:], TokenMeta.plain(1, 7, start=5), short).hidden
    torch.testing.assert_close(again, out.hidden[:, 5:], atol=1e-4, rtol=1e-4)


def test_relations_between_files_change_what_is_predicted(model: RIA) -> None:
    tokens = torch.randint(0, 97, (1, 24), generator=torch.Generator().manual_seed(5))
    meta = two_files(24)
    cut = dataclasses.replace(meta, relations=torch.eye(2, dtype=torch.int64)[None])
    with_import, without = (model(tokens, each).hidden[:, -1] for each in (meta, cut))
    assert not torch.allclose(with_import, without, atol=1e-3)


def test_every_parameter_learns_but_the_router(model: RIA) -> None:
    """Gradients reach all weights from the language model's loss; the router waits for data of its own."""
    meta = two_files(24)
    tokens = torch.randint(0, 97, (1, 24), generator=torch.Generator().manual_seed(6))
    model.zero_grad()
    model.logits(model(tokens, meta).hidden).square().mean().backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert still == {f"tool_router.{part}.{kind}" for part in ("call", "choose") for kind in ("weight", "bias")}
    decision = model.tool_router(torch.zeros(2, 128))
    assert decision.probability.shape == (2,) and decision.logits.shape == (2, TINY.num_tools)


def test_the_softcap_bounds_the_logits(model: RIA) -> None:
    assert float(model.logits(torch.full((1, 128), 1e3)).detach().abs().max()) <= 15.0


def test_taps_are_the_stream_behind_a_layer(model: RIA) -> None:
    tokens, meta = torch.zeros(1, 4, dtype=torch.int64), TokenMeta.plain(1, 4)
    out = model(tokens, meta, taps=(1,))
    torch.testing.assert_close(model.norm(out.taps[1]), out.hidden)


def test_units_hold_every_tensor_of_the_layers(model: RIA) -> None:
    held = {name for unit in model.units() for name in unit.tensors()}
    own = {name for name, _ in model.named_parameters()}
    left = {name for name in own - held if "layernorm" not in name and "skips" not in name}
    assert held <= own and left == {name for name in own if name.startswith("tool_router")}


def test_a_seed_says_everything() -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(len(made))  # what else was drawn before must not matter
        model = RIA(dataclasses.replace(TINY, zero_output=False))
        model.initialise(seed=3)
        made.append(dict(model.named_parameters()))
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="ria-1b, ria-8b"):
        entry("ria-2b")
