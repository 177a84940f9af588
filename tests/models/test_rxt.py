"""RxT: the counts of its document, what a memory must and must not change, and where gradients go."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from riallm.core.config import from_json, to_json
from riallm.core.errors import CheckpointError, UsageError
from riallm.models.episodes import Interaction, decoded, episodes, written
from riallm.models.rxt import RxT, RxTConfig
from riallm.models.zoo import RXT_BETA_MICRO
from riallm.nn.cross_attention import CrossAttention, align
from riallm.nn.memory_attention import Variant
from riallm.nn.memory_gate import GateConfig, MemoryGate
from riallm.nn.memory_state import MemoryState, check_memory_file, load_memory, memory_from_bytes
from riallm.nn.meta import TokenMeta
from riallm.testing.tiny_rxt import tiny_rxt

TINY = tiny_rxt(vocab_size=40, max_interaction=12)
CLOSE = 1e-4


def made(config: RxTConfig = TINY, seed: int = 0) -> RxT:
    model = RxT(config)
    model.initialise(seed)
    return model.eval()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(1, TINY.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def everything(tokens: Tensor) -> Tensor:
    return torch.ones_like(tokens, dtype=torch.bool)


@torch.inference_mode()
def replied(model: RxT, tokens: Tensor, memory: MemoryState) -> Tensor:
    """Logits of an interaction, in one pass."""
    meta = TokenMeta.plain(*tokens.shape)
    return model.logits(model(tokens, meta, model.turn(memory, keep=False)).hidden)


def test_beta_micro_has_the_parameters_of_its_document() -> None:
    with torch.device("meta"):
        model = RxT(RXT_BETA_MICRO)

    def size(*parts: str) -> int:
        return sum(p.numel() for name, p in model.named_parameters() if name.startswith(parts))

    embeddings = size("embed_tokens")
    decoder = embeddings + size("layers", "lm_head")
    experts = sum(p.numel() for name, p in model.named_parameters() if "experts" in name)
    assert decoder == 251_304_192
    assert decoder - experts * 38 // 42 == 41_432_320
    assert embeddings + size("encoder") == 18_320_384
    assert size("memory_attention") == 3_731_200
    assert model.costs().num_parameters == 265_163_776
    assert from_json(RxTConfig, to_json(RXT_BETA_MICRO)) == RXT_BETA_MICRO


@pytest.mark.parametrize("variant", ["simple", "self", "interlayer", "gated_self_interlayer"])
@pytest.mark.parametrize("gate", [GateConfig(), GateConfig(kind="linear", mixing="tanh"), GateConfig(mixing="add")])
def test_every_variant_writes_what_the_next_answer_reads(variant: Variant, gate: GateConfig) -> None:
    model = made(replace(TINY, memory=replace(TINY.memory, variant=variant, gate=gate)))
    start, tokens = model.start(2), drawn(2, 5)
    after = model.end_turn(tokens, everything(tokens), start)
    assert after.slots.shape == start.slots.shape
    assert after.version == 1
    query = drawn(2, 4, seed=1)
    assert (replied(model, query, after) - replied(model, query, start)).abs().max() > 1e-3


def test_layers_in_groups_see_the_mean_of_their_group_alone() -> None:
    grouped = replace(TINY, num_layers=4, memory=replace(TINY.memory, layer_groups=2))
    model, tokens = made(grouped), drawn(1, 5)
    memory = model.start()
    other = memory.slots.clone()
    other[3] += 1.0
    one = model.end_turn(tokens, everything(tokens), memory).slots
    two = model.end_turn(tokens, everything(tokens), replace(memory, slots=other)).slots
    assert torch.equal(one[:2], two[:2])
    assert not torch.equal(one[2], two[2])
    with pytest.raises(UsageError, match="3 groups"):
        made(replace(grouped, memory=replace(TINY.memory, layer_groups=3)))
    with pytest.raises(UsageError, match="layer_groups is 0"):
        replace(TINY.memory, layer_groups=0)
    with pytest.raises(UsageError, match="variant 'self' has no mean of layers"):
        replace(TINY.memory, layer_groups=2, variant="self")


def test_with_and_without_a_cache_the_logits_are_the_same() -> None:
    model, tokens = made(), drawn(2, 9)
    memory = model.end_turn(tokens, everything(tokens), model.start(2))
    whole = replied(model, tokens, memory)
    state, parts = model.turn(memory), []
    for first, last in ((0, 4), (4, 5), (5, 9)):
        part = tokens[:, first:last]
        out = model(part, TokenMeta.plain(*part.shape, start=first), state)
        parts.append(model.logits(out.hidden))
        state = out.state
    assert (torch.cat(parts, dim=1) - whole).abs().max() < CLOSE


def test_a_conversation_is_the_same_in_company_and_alone() -> None:
    model, tokens = made(), drawn(3, 7)
    together = model.end_turn(tokens, everything(tokens), model.start(3, seed=5))
    start = model.start(3, seed=5)
    for row in range(3):
        alone = model.end_turn(tokens[[row]], everything(tokens[[row]]), start.rows([row]))
        assert (alone.slots - together.slots[:, [row]]).abs().max() < CLOSE
        reply = replied(model, tokens[[row]], alone)
        assert (reply - replied(model, tokens, together)[[row]]).abs().max() < CLOSE


def test_padding_changes_nothing() -> None:
    model, tokens = made(), drawn(1, 5)
    padded = torch.cat((tokens, torch.full((1, 4), 3)), dim=1)
    mask = torch.arange(9)[None] < 5
    start = model.start()
    plain, filled = model.end_turn(tokens, everything(tokens), start), model.end_turn(padded, mask, start)
    assert (plain.slots - filled.slots).abs().max() < CLOSE
    out = model(padded, TokenMeta.padded(mask), model.turn(plain))
    assert (model.logits(out.hidden)[:, :5] - replied(model, tokens, plain)).abs().max() < CLOSE
    short = model(tokens, TokenMeta.plain(1, 5), model.turn(plain))
    for one, other in zip(out.routing, short.routing, strict=True):
        assert torch.allclose(one.load, other.load)
        assert torch.allclose(one.balance, other.balance, atol=1e-5)


def test_a_row_without_an_interaction_keeps_its_memory_to_the_bit() -> None:
    model, tokens = made(), drawn(2, 5)
    mask = everything(tokens)
    mask[1] = False
    start = model.start(2)
    after = model.end_turn(tokens, mask, start)
    assert torch.equal(after.slots[:, 1], start.slots[:, 1])
    assert not torch.equal(after.slots[:, 0], start.slots[:, 0])


def test_slots_are_told_apart_by_content_alone_unless_they_have_names() -> None:
    tokens, order = drawn(1, 6), torch.tensor([3, 0, 5, 1, 4, 2])

    @torch.inference_mode()
    def far(model: RxT) -> float:
        start = model.start()
        moved = replace(start, slots=start.slots[:, :, order])
        after = model.end_turn(tokens, everything(tokens), start).slots[:, :, order]
        return float((model.end_turn(tokens, everything(tokens), moved).slots - after).abs().max())

    assert far(made()) < CLOSE
    assert far(made(replace(TINY, memory=replace(TINY.memory, slot_identity=True)))) > 0.01


@pytest.mark.parametrize("kind", ["static", "elementwise", "linear"])
def test_a_sigmoid_gate_stays_between_old_and_new(kind: str) -> None:
    draw = torch.Generator().manual_seed(0)
    old, new = (torch.randn((3, 6, 32), generator=draw) for _ in range(2))
    gate = MemoryGate(GateConfig(kind=kind), hidden_size=32, num_slots=6)  # type: ignore[arg-type]
    mixed = gate(old, new)
    assert (mixed >= torch.minimum(old, new) - 1e-6).all()
    assert (mixed <= torch.maximum(old, new) + 1e-6).all()
    assert not torch.equal(mixed, old)


def test_a_biased_gate_keeps() -> None:
    old, new = torch.zeros(1, 6, 32), torch.ones(1, 6, 32)
    gate = MemoryGate(GateConfig(bias=-4.0, weight=0.0), hidden_size=32, num_slots=6)
    assert float(gate(old, new).max().detach()) == pytest.approx(0.018, abs=1e-3)


def reach(window: int | None, num: int = 5) -> list[float]:
    """How large the gradient of the last answer by the embedding of a token is that interaction t alone holds."""
    model = made(replace(TINY, max_interaction=4))
    tokens = torch.stack([torch.tensor([1, 2, 3, 10 + at]) for at in range(num)])[None]
    memories = written(model, tokens, everything(tokens), window=window)
    hidden, _ = decoded(model, tokens[:, -1:], everything(tokens)[:, -1:], memories[-2:-1])
    model.logits(hidden).logsumexp(dim=-1).sum().backward()
    grad = model.embed_tokens.weight.grad
    assert grad is not None
    return [float(grad[10 + at].norm()) for at in range(num - 1)]


def test_gradients_reach_back_as_far_as_the_window() -> None:
    assert all(size > 0 for size in reach(None))
    one = reach(1)
    assert one[:3] == [0.0, 0.0, 0.0]
    assert one[3] > 0
    assert [size > 0 for size in reach(2)] == [False, False, True, True]


def test_conversations_may_be_of_different_lengths() -> None:
    rows = [[Interaction([1, 2, 3], 2)] * 3, [Interaction([1, 4, 5, 6], 2)]]
    data = episodes(rows, num_tokens=5)
    assert data.tokens.shape == (2, 3, 5)
    assert data.num_units == 3 * 1 + 2
    model = made()
    memories = written(model, data.tokens, data.mask)
    assert torch.equal(memories[1].slots[:, 1], memories[3].slots[:, 1])
    with pytest.raises(UsageError, match="4 tokens; rows have 3"):
        episodes(rows, num_tokens=3)


def test_a_saved_memory_goes_on_to_the_bit(tmp_path: Path) -> None:
    model, tokens = made(), drawn(2, 5)
    memory = replace(model.end_turn(tokens, everything(tokens), model.start(2)), model="abc")
    memory.save(tmp_path / "one")
    loaded = load_memory(tmp_path / "one")
    assert (loaded.version, loaded.model) == (1, "abc")
    fork = loaded
    one = model.end_turn(tokens, everything(tokens), memory)
    two = model.end_turn(tokens, everything(tokens), loaded)
    assert torch.equal(one.slots, two.slots)
    assert torch.equal(fork.slots, memory.slots)
    data = (tmp_path / "one").read_bytes()
    (tmp_path / "cut").write_bytes(data[:-7])
    (tmp_path / "text").write_text("no tensors")
    header = b'{"__metadata__":null}'
    (tmp_path / "bare").write_bytes(len(header).to_bytes(8, "little") + header)
    (tmp_path / "more").write_bytes(data + b"\0")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("cut", "text", "bare", "more", "missing", "folder", "pipe"):
        for call in (load_memory, check_memory_file):
            with pytest.raises(CheckpointError, match=name):
                call(str(tmp_path / name))


def test_every_bit_of_a_memory_file_counts(tmp_path: Path) -> None:
    data = MemoryState(slots=torch.randn(1, 1, 2, 4), version=3, model="abc").to_bytes()
    assert memory_from_bytes(data, where="here").version == 3
    for bit in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckpointError, match="here"):
            memory_from_bytes(bytes(wrong), where="here")


def test_what_else_safetensors_can_hold_is_no_memory() -> None:
    slots = torch.zeros(1, 1, 2, 4)
    told = {"format": "riallm-memory-1", "version": "2", "model": ""}
    assert memory_from_bytes(save({"slots": slots}, metadata=told), where="here").version == 2, "from before the hash"
    for tensors, change, message in (
        ({"slots": slots, "more": slots + 1}, {}, "it holds __metadata__, "),
        ({"more": slots}, {}, "expected __metadata__ and slots"),
        ({"slots": slots}, {"version": "-5"}, "its version is -5"),
        ({"slots": slots}, {"version": str(10**30)}, "its version is 1000"),
        ({"slots": slots}, {"version": "two"}, "'two'"),
        ({"slots": slots}, {"version": "9" * 5000}, "here cannot be read as a memory"),
        ({"slots": slots}, {"format": "riallm-memory-2"}, "no memory of a conversation"),
        ({"slots": slots}, {"more": "x"}, "no memory of a conversation"),
        ({"slots": slots}, {"format": "y" * 70000}, "it has no header of ours"),
    ):
        with pytest.raises(CheckpointError, match=message):
            memory_from_bytes(save(tensors, metadata={**told, **change}), where="here")
    for header in (b"[" * 60000, b"[]", b"{", b'{"__metadata__":[]}', b"\xff"):
        with pytest.raises(CheckpointError, match="here cannot be read as a memory"):
            memory_from_bytes(len(header).to_bytes(8, "little") + header, where="here")


def test_of_what_is_no_memory_little_is_read(tmp_path: Path) -> None:
    data = MemoryState(slots=torch.zeros(1, 1, 2, 4)).to_bytes()
    for begins, message in ((b"", "it has no header of ours"), (data, "its header tells of another number")):
        (tmp_path / "large").write_bytes(begins)
        os.truncate(tmp_path / "large", 1 << 42)  # more than fits into the memory, and on the disk next to nothing
        for call in (load_memory, check_memory_file):
            with pytest.raises(CheckpointError, match=message):
                call(tmp_path / "large")
    for device in ("/dev/zero", "/dev/full"):
        with pytest.raises(CheckpointError, match=f"{device} cannot be read as a memory: it is no regular file"):
            load_memory(device)


def test_a_memory_is_saved_in_a_file_or_refused(tmp_path: Path) -> None:
    state = MemoryState(slots=torch.zeros(1, 1, 2, 4), version=1)
    state.save(str(tmp_path / "kept"))
    state.save(tmp_path / "kept")
    assert load_memory(str(tmp_path / "kept")).version == 1
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("", "no regular file"), ("pipe", "no regular file"), ("none/kept", "cannot be written: No")):
        with pytest.raises(CheckpointError, match=message):
            state.save(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()


def test_a_memory_that_does_not_fit_is_refused() -> None:
    model, other = made(), made(replace(TINY, num_slots=7))
    broken, start, tokens = model.start(), model.start(), drawn(1, 5)
    broken.slots[0, 0, 0, 0] = float("nan")
    model.fingerprint = "a" * 64
    for wrong, message in (
        (other.start(), r"this model's is \(2 layers, rows, 6 slots, 32 numbers\)"),
        (broken, "no number"),
        (replace(start, model="b" * 64), "written by the model bbb"),
        (replace(start, slots=start.slots.double()), "numbers are torch.float64.*no model here writes such a one"),
        (replace(start, slots=start.slots.int()), "numbers are torch.int32.*no model here writes such a one"),
        (replace(start, slots=start.slots.bfloat16()), "numbers are torch.bfloat16.*open the model in that type"),
        (replace(start, slots=start.slots * 1e30), "too large to compute with"),
    ):
        for call in (model.turn, lambda memory: model.end_turn(tokens, everything(tokens), memory)):
            with pytest.raises(UsageError, match=message):
                call(wrong)
    with pytest.raises(UsageError, match="1 interactions for a memory of 2 rows"):
        model.end_turn(tokens, everything(tokens), model.start(2))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros((1, 0), dtype=torch.int64), "of 0 tokens"),
        (torch.ones((1, 13), dtype=torch.int64), "of 13 tokens; this model takes 1 to 12"),
        (torch.tensor([[1, 40]]), "40 is no token"),
        (torch.tensor([[-1, 4]]), "-1 is no token"),
    ],
)
def test_an_interaction_that_cannot_be_is_refused(tokens: Tensor, message: str) -> None:
    model = made()
    start = model.start()
    kept = start.slots.clone()
    with pytest.raises(UsageError, match=message):
        model.end_turn(tokens, everything(tokens), start)
    assert torch.equal(start.slots, kept)


def test_masks_are_truths_or_ones_and_zeros() -> None:
    model, tokens = made(), drawn(2, 5)
    mask = torch.arange(5) < torch.tensor([[3], [5]])
    after = model.end_turn(tokens, mask, model.start(2))
    for kind in (torch.int64, torch.uint8):
        assert torch.equal(model.end_turn(tokens, mask.to(kind), model.start(2)).slots, after.slots)
    for wrong, message in (
        (2 * mask, "a mask of torch.int64; expected truths"),
        (mask.float(), "a mask of torch.float32; expected truths"),
        (mask[:1], r"a mask of shape \(1, 5\) for tokens of shape \(2, 5\)"),
        (mask[:, 1:], r"a mask of shape \(2, 4\)"),
    ):
        with pytest.raises(UsageError, match=message):
            model.end_turn(tokens, wrong, model.start(2))


def test_a_state_is_decoded_with_its_own_number_of_rows() -> None:
    model = made()
    for state in (model.start(), model.decode(drawn(1, 3), model.start())[1]):
        with pytest.raises(UsageError, match="2 rows of tokens for a state of 1"):
            model.decode(drawn(2, 3), state)


def test_rows_are_those_that_are_there() -> None:
    state = made().start(3)
    for chosen, same in (
        ([2, 0], [2, 0]),
        ((-1,), [2]),
        ([], []),
        (torch.tensor([1], dtype=torch.uint8), [1]),
        ([False, True, True], [1, 2]),
        (slice(1, None), [1, 2]),
    ):
        assert torch.equal(state.rows(chosen).slots, state.slots[:, same])
    for wrong in (0, [3], [-4], [[0]], [0.0], "a", ["a"], [True], torch.tensor(0), None):
        with pytest.raises(UsageError, match="of a memory of 3; expected a slice, or a list of 0 to 2"):
            state.rows(wrong)  # type: ignore[arg-type]


def test_sizes_are_at_least_1() -> None:
    sizes = [name for name, value in to_json(TINY).items() if type(value) is int]
    assert {"num_layers", "hidden_size", "num_slots", "num_heads", "vocab_size"} < set(sizes)
    for name in sizes:
        for wrong in (0, -1):
            with pytest.raises(UsageError, match=f"^{name} is {wrong}; it is at least 1"):
                replace(TINY, **{name: wrong})


def test_a_start_is_drawn_by_its_seed_or_learned() -> None:
    model = made()
    for num in (0, -1):
        with pytest.raises(UsageError, match=f"{num} conversations; there is at least 1"):
            model.start(num)
    assert torch.equal(model.start(2, seed=1).slots, model.start(2, seed=1).slots)
    assert not torch.equal(model.start(2, seed=1).slots, model.start(2, seed=2).slots)
    learned = made(replace(TINY, trained_start=True)).start(2, seed=1).slots
    assert torch.equal(learned[:, 0], learned[:, 1])


@pytest.mark.parametrize("places", [1, 2])
def test_slots_compete_for_what_is_new(places: int) -> None:
    draw = torch.Generator().manual_seed(0)
    config = GateConfig(kind="competing", status="learned", bias=2.0, places=places)
    gate = MemoryGate(config, hidden_size=32, num_slots=6)
    assert gate.match is not None
    with torch.no_grad():
        for parameter in gate.match.parameters():
            parameter.normal_(generator=draw).mul_(32**-0.5)
        gate.match.names.mul_(32**0.5)
        assert gate.status is not None
        gate.status.weight.zero_()
    old = torch.randn((50, 6, 32), generator=draw)
    new = torch.randn((50, 1, 32), generator=draw).expand_as(old)
    opened = 0.8808  # sigmoid(2)
    taken = gate.gate(old, new).detach() / opened
    assert float(taken.max()) < 1.001
    together = taken.sum(dim=-1)
    assert 0.75 * places < float(together.mean()) and float(together.max()) < places + 1e-3  # a slot may be two places
    assert float(taken.amax(dim=-1).mean()) > 0.5
    assert len(set(taken.argmax(dim=-1).tolist())) == 6  # other content, other slots


def test_a_competition_is_learned_from_what_is_new() -> None:
    draw = torch.Generator().manual_seed(0)
    gate = MemoryGate(GateConfig(kind="competing", status="learned"), hidden_size=32, num_slots=6)
    assert gate.match is not None
    with torch.no_grad():
        for parameter in gate.match.parameters():
            parameter.normal_(generator=draw).mul_(32**-0.5)
    old, new = (torch.randn((3, 6, 32), generator=draw, requires_grad=True) for _ in range(2))
    gate.match(old, new)[:, 0].sum().backward()
    assert old.grad is None
    for each in (new, *gate.match.parameters()):
        assert each.grad is not None and float(each.grad.norm()) > 0.01


def test_places_are_of_slots_that_compete() -> None:
    for wrong in ({"places": 0, "kind": "competing"}, {"places": 2}):
        with pytest.raises(UsageError, match="at least 1, and more than 1 if competing"):
            GateConfig(**wrong)  # type: ignore[arg-type]


def test_attention_begins_as_a_look_up() -> None:
    """What is written of one token is found by it, and by nothing else as well."""
    attention = CrossAttention(hidden_size=64, num_heads=4, num_kv_heads=4, head_dim=16)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(generator=draw).mul_(64**-0.5)
        align(attention, draw)
        things = torch.randn((1, 12, 64), generator=draw)
        found = attention(3 * things, things)
        alike = torch.nn.functional.cosine_similarity(found[0, :, None], things[0, None], dim=-1)
    assert alike.argmax(dim=-1).tolist() == list(range(12))


@torch.inference_mode()
def test_the_plain_form_says_token_by_token_what_one_pass_says() -> None:
    model, tokens = made(), drawn(2, 6)
    memory = model.end_turn(drawn(2, 5, seed=1), everything(drawn(2, 5)), model.start(2))
    first, state = model.decode(tokens[:, :3], memory)
    later = []
    for at in range(3, 6):
        logits, state = model.decode(tokens[:, at : at + 1], state)
        later.append(logits)
    torch.testing.assert_close(torch.cat((first, *later), dim=1), replied(model, tokens, memory), atol=CLOSE, rtol=0)
    assert model.end_turn(tokens, everything(tokens), memory).version == memory.version + 1
    with pytest.raises(UsageError, match="keeps no tokens"):
        model.decode(tokens, model.turn(memory, keep=False))
