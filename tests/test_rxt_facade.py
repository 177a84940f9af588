"""The quick start of the Reactive Transformer's document, and what its names do here, at a size for tests."""

from __future__ import annotations

import gc
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from riallm.core.errors import CheckpointError, ClientError, UsageError
from riallm.models.load import TOKENIZER, load_rxt, save_rxt
from riallm.nn.memory_state import MemoryState
from riallm.rxt import RxTAlpha, RxTBeta, load_tokenizer_from_file, load_tokenizer_from_hf_hub
from riallm.testing.tiny import write_tiny
from riallm.testing.tiny_rxt import write_tiny_rxt
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.interaction import ANSWER, BEGIN, QUERY, THINK, interaction_ids, markers, with_markers
from riallm.tokenizer.special import END_OF_TEXT, PAD, hole
from riallm.tokenizer.training import train

QUICK_START = """\
import torch
from riallm.rxt import RxTBeta
from riallm.rxt import load_tokenizer_from_hf_hub

tokenizer = load_tokenizer_from_hf_hub('rxt-nano')

model = RxTBeta.from_pretrained('rxt-nano', tokenizer=tokenizer)
model.share_components() # currently required to connect embeddings/STM

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model.to(device)

seq_len = 1024

# Memory init - could be used as "system prompt" in LLMs (not recommended in this model, as it wasn't trained with system prompts)
stm_init_state = model.tokenize_full_interaction('System prompt like', 'Initial memory for the model', max_seq_len=seq_len, device=device)
model.init_stm_state(**stm_init_state)

# Helper function
def interaction(query: str):
    tokenized_query = model.tokenize_query(query, max_seq_len=seq_len, device=device)
    for token_id in model.interact(**tokenized_query, max_seq_len=seq_len, temperature=1.0):
        if token_id == -1:
            print('\\n', '[Start memory update...]')
        elif token_id == -2:
            print('[Memory updated]')
        else:
            txt_token = model.stringify_token(token_id)
            print(txt_token, end='')

# Process first interaction
interaction('Hello! Who are you?')
# Process follow-up interaction
interaction('Follow-up question?')
"""  # noqa: E501
"""The document's block; imports and names of the repositories are ours."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_rxt(tmp_path_factory.mktemp("rxt") / "tiny")


@pytest.fixture
def model(folder: Path) -> RxTBeta:
    return RxTBeta.from_pretrained(folder)


def test_the_quick_start_runs_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    space: dict[str, Any] = {}
    exec(QUICK_START, space)
    first, second, rest = capsys.readouterr().out.split("\n [Start memory update...]\n[Memory updated]\n")
    assert first and second and not rest
    assert space["model"].session.version == 3


def test_an_interaction_is_written_as_in_the_document(model: RxTBeta) -> None:
    def shown(ids: Tensor) -> str:
        return model.tokenizer.decode(ids[0].tolist())

    whole = model.tokenize_full_interaction("Wie geht's?", f"Gut {ANSWER}")
    assert shown(whole["input_ids"]) == f"{BEGIN}{QUERY}Wie geht's?{ANSWER}Gut {ANSWER}{END_OF_TEXT}"
    own = markers(model.tokenizer)
    assert whole["input_ids"][0].tolist().count(own.answer) == 1, "a marker that is only text stays text"
    assert whole["attention_mask"].tolist() == [[1] * whole["input_ids"].shape[1]]
    thought = model.tokenize_full_interaction("a", "b", think="c")["input_ids"]
    assert shown(thought) == f"{BEGIN}{QUERY}a{THINK}c{ANSWER}b{END_OF_TEXT}"
    assert shown(model.tokenize_query("a")["input_ids"]) == f"{BEGIN}{QUERY}a"
    both = model.tokenize_batch(["a", "a b c"])
    assert shown(both["input_ids"][:1]) == f"{BEGIN}{QUERY}a" + PAD * (both["input_ids"].shape[1] - 3)
    assert both["attention_mask"].sum(dim=1).tolist() == [3, both["input_ids"].shape[1]]


def test_markers_change_no_other_id() -> None:
    text = Path(textwrap.__file__).read_text(encoding="utf-8")
    vocabulary = train([text], size=600)
    plain, ours = HybridTokenizer(vocabulary), HybridTokenizer(with_markers(vocabulary))
    assert ours.encode(text) == plain.encode(text)
    names = [[special.name for special in each.vocabulary.specials] for each in (plain, ours)]
    changed = {one: other for one, other in zip(*names, strict=True) if one != other}
    assert changed == {hole(13): BEGIN, hole(14): QUERY, hole(15): ANSWER}
    assert all(ours.special(changed.get(name, name)) == plain.special(name) for name in names[0])
    with pytest.raises(UsageError, match="whose places the markers take"):
        with_markers(ours.vocabulary)
    with pytest.raises(UsageError, match=r"no <\|answer\|>, <\|begin\|>, <\|query\|>"):
        markers(plain)


def test_an_answer_ends_with_both_marks_and_the_memory_is_what_was_said(model: RxTBeta) -> None:
    start, own, query = model.session.state, markers(model.tokenizer), model.tokenize_query("Hello?")
    asked = query["input_ids"][0].tolist()

    @torch.no_grad()
    def written(*said: int) -> Tensor:
        tokens = torch.tensor([[*asked, *said]])
        return model.model.end_turn(tokens, torch.ones_like(tokens, dtype=torch.bool), start).slots

    *answer, begins, done = model.interact(**query, seed=1)
    assert (begins, done) == (-1, -2)
    assert all(token >= 0 for token in answer)
    assert answer[-1] == own.end or len(asked) + 1 + len(answer) == 64
    assert torch.equal(model.export_stm_state(), written(own.answer, *answer))
    model.reset_stm_state()
    assert list(model.interact(**query, seed=1)) == [*answer, -1, -2], "what was forgotten is as if it had not been"
    model.reset_stm_state()
    assert list(model.interact(**query, seed=2)) != [*answer, -1, -2], "another seed draws another answer"
    model.reset_stm_state()
    *thought, _, _ = model.interact(**query, seed=1, thinking_mode="extended")
    assert torch.equal(model.export_stm_state(), written(own.think, *thought))


def test_another_tokenizer_tells_where_answers_end(model: RxTBeta) -> None:
    own = HybridTokenizer(with_markers(train([Path(textwrap.__file__).read_text(encoding="utf-8")], size=400)))
    end = markers(own).end
    assert end != markers(model.tokenizer).end
    with torch.no_grad():
        model.model.lm_head.bias[end] = 1e4
    model.set_tokenizer(own)
    assert list(model.interact(**model.tokenize_query("Hello?"))) == [end, -1, -2]
    model.set_batch_mode(True, 2)
    steps = [step.tolist() for step in model.batch_interact(**model.tokenize_batch(["a", "b"]))]
    assert steps == [[end] * 2, [-1] * 2, [-2] * 2]


@pytest.mark.parametrize("stop", [0, 1, 3, -1])
def test_the_memory_is_written_wherever_the_caller_stops(model: RxTBeta, stop: int) -> None:
    start, query = model.session.state, model.tokenize_query("Hello?")
    answer, said = model.interact(**query, seed=1), []
    for number, token in enumerate(answer if stop else (), 1):
        said += [token] * (token >= 0)
        if number == stop or token == stop:
            break
    del answer
    gc.collect()
    tokens = torch.tensor([[*query["input_ids"][0].tolist(), markers(model.tokenizer).answer, *said]])
    with torch.no_grad():
        written = model.model.end_turn(tokens, torch.ones_like(tokens, dtype=torch.bool), start)
    assert torch.equal(model.export_stm_state(), written.slots), "as far as it was read, and no further"


def test_exported_memories_go_on_to_the_bit(model: RxTBeta, folder: Path) -> None:
    for query in ("one", "two"):
        list(model.interact(**model.tokenize_query(query), max_seq_len=24, seed=1))
    kept = model.export_stm_state()
    assert kept.shape == (2, 1, 6, 32)
    assert not kept.requires_grad
    other = RxTBeta.from_pretrained(folder)
    other.load_stm_state(kept)
    assert other.session.state.model == load_rxt(folder).fingerprint != ""
    assert (model.session.version, other.session.version) == (2, 0), "a tensor has no version"
    asked = model.tokenize_query("three")
    assert list(model.interact(**asked, seed=2)) == list(other.interact(**asked, seed=2))
    assert torch.equal(model.export_stm_state(), other.export_stm_state())
    assert not torch.equal(model.export_stm_state(), kept)
    model.load_stm_state(kept)
    kept[:] = 0.0
    model.export_stm_state().zero_()
    assert float(model.export_stm_state().abs().max()) > 0.0, "what goes in and out is a copy"
    model.reset_stm_state()
    assert torch.equal(model.export_stm_state(), model.model.start().slots)


def test_a_batch_says_what_each_row_says_alone(model: RxTBeta) -> None:
    queries = ["a", "What is in the box?", "no"]
    model.set_batch_mode(True, 3)
    start = model.export_stm_state()
    asked = model.tokenize_batch(queries)
    steps = list(model.batch_interact(**asked, temperature=0.0, max_seq_len=30))
    assert [step.tolist() for step in steps[-2:]] == [[-1] * 3, [-2] * 3]
    own = markers(model.tokenizer)
    rows = torch.stack(steps[:-2], dim=1)
    together = model.export_stm_state()
    model.set_batch_mode(False)
    for number, query in enumerate(queries):
        model.load_stm_state(start[:, [number]])
        alone = list(model.interact(**model.tokenize_query(query), temperature=0.0, max_seq_len=30))[:-2]
        assert rows[number].tolist() == alone + [own.pad] * (rows.shape[1] - len(alone))
        assert (model.export_stm_state() - together[:, [number]]).abs().max() < 1e-4


def test_all_answers_of_a_batch_at_once(model: RxTBeta) -> None:
    model.set_batch_mode(True, 2)
    asked = model.tokenize_batch(["a", "What is in the box?"])
    ids, mask = model.batch_interactions(**asked, seed=3, max_seq_len=30)
    assert model.session.version == 1
    texts = model.stringify_batch(ids)
    model.reset_stm_state()
    whole, _ = model.batch_interactions(**asked, seed=3, max_seq_len=30, return_interactions_with_queries=True)
    assert whole.shape[1] <= 30
    for number, text in enumerate(texts):
        assert text == model.stringify_tokens(ids[number][mask[number].bool()])
        shown = model.tokenizer.decode(whole[number].tolist())
        assert shown.startswith(BEGIN + QUERY)
        assert ANSWER in shown
    model.reset_stm_state()
    said = ["", ""]
    for step in model.batch_interact(**asked, seed=3, max_seq_len=30):
        said = [one + more for one, more in zip(said, model.stringify_batch(step), strict=True)]
    assert said == texts


def test_characters_of_several_tokens_are_whole(model: RxTBeta) -> None:
    text = "Zoë: 日本 ✓"
    ids = [*model.tokenizer.encode(text), markers(model.tokenizer).end]
    pieces = [model.stringify_token(token) for token in ids]
    assert "" in pieces
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == model.stringify_tokens([*ids, -1, -2]) == text
    assert model.stringify_token(ids[-1], skip_special_tokens=False) == END_OF_TEXT
    assert [model.stringify_token(token) for token in (-1, -2)] == ["", ""]
    assert "update" in model.stringify_token(-1, show_memory_update=True)
    assert "updated" in model.stringify_token(-2, show_memory_update=True)
    model.stringify_token("é".encode()[0])
    list(model.interact(**model.tokenize_query("a"), max_seq_len=8))
    assert model.stringify_token(ord("a")) == "a", "half a character of an earlier answer is gone"


def test_a_model_in_a_folder_is_the_model(folder: Path, tmp_path: Path) -> None:
    loaded = load_rxt(folder)
    assert len(loaded.fingerprint) == 64
    assert load_rxt(write_tiny_rxt(tmp_path / "same")).fingerprint == loaded.fingerprint
    save_rxt(loaded, tmp_path / "exact", bits=None, plain="float32")
    again = load_rxt(tmp_path / "exact")
    assert again.fingerprint != loaded.fingerprint
    assert again.config == loaded.config
    assert not again.training
    for (name, one), other in zip(loaded.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other), name
    with pytest.raises(UsageError, match="written by the model"):
        again.turn(loaded.start())
    write_tiny(tmp_path / "ria")
    with pytest.raises(CheckpointError, match=r"model_type 'ria'; expected 'rxt'; .* for riallm complete"):
        RxTBeta.from_pretrained(tmp_path / "ria")


def test_names_lead_to_what_is_there_and_nothing_is_downloaded(folder: Path, tmp_path: Path) -> None:
    for call in (RxTBeta.from_pretrained, load_tokenizer_from_hf_hub):
        with pytest.raises(UsageError, match="Nothing is downloaded here"):
            call("ReactiveAI/RxT-Beta-Micro-Supervised")
    tokenizer = load_tokenizer_from_file(folder / TOKENIZER)
    assert tokenizer.sha256 == load_tokenizer_from_hf_hub(str(folder)).sha256
    assert isinstance(RxTAlpha.from_pretrained(folder), RxTBeta)
    write_tiny(tmp_path / "ria")
    with pytest.raises(UsageError, match=r"no <\|answer\|>, <\|begin\|>, <\|query\|>"):
        load_tokenizer_from_hf_hub(tmp_path / "ria")


def test_what_cannot_be_is_refused_and_changes_nothing(model: RxTBeta) -> None:
    before, query = model.export_stm_state(), model.tokenize_query("Hello?")
    long = "word " * 80
    with pytest.raises(UsageError, match="there is room for 1 to 64"):
        model.tokenize_query(long)
    with pytest.raises(UsageError, match="there is room for 1 to 4"):
        model.tokenize_full_interaction("Hello?", "World", max_seq_len=4)
    for call in (lambda: model.tokenize_query(long, 1024), lambda: model.tokenize_full_interaction("a", long, 1024)):
        with pytest.raises(UsageError, match="there is room for 1 to 64"):
            call()
    for call in (lambda: model.tokenize_query("a", 0), lambda: model.interact(**query, max_seq_len=0)):
        with pytest.raises(UsageError, match="max_seq_len is 0; it is at least 1, query and answer together"):
            call()
    for device, message in (("nowhere", "'nowhere' cannot be used here"), ("meta", "'meta' cannot be used here")):
        for call in (model.to, lambda device: model.tokenize_query("a", device=device)):
            with pytest.raises(UsageError, match=f"device {message}"):
                call(device)
    for options, message in (
        ({"thinking_mode": "auto"}, "there are fast, extended"),
        ({"use_self_attn_cache": False}, "always on"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": -1}, "top_k is -1; it is at least 0"),
        ({"top_p": 0.0}, "top_p is 0.0; it is above 0"),
        ({"seed": -1}, "seed is -1; it is at least 0"),
        ({"max_seq_len": 3}, "leaves no room"),
    ):
        with pytest.raises(UsageError, match=message):
            model.interact(**query, **options)
    for options in ({"add_noise": 0.1}, {"force": True}):
        with pytest.raises(UsageError, match="as it is in a conversation"):
            model.init_stm_state(**query, **options)
    ids, mask = query["input_ids"], query["attention_mask"]
    for wrong in ((ids[0], mask[0]), (ids, mask[:, 1:]), (ids.float(), mask)):
        with pytest.raises(UsageError, match="expected integers of the same shape"):
            model.interact(*wrong)
    with pytest.raises(UsageError, match=r"a mask of torch\.int64; expected truths, or integers 1"):
        model.interact(ids, 2 * mask)
    for call in (model.interact, model.batch_interact, model.init_stm_state):
        with pytest.raises(UsageError, match="keeps no token"):
            call(ids, torch.zeros_like(mask))
    with pytest.raises(UsageError, match="2 queries; interact answers one"):
        model.interact(**model.tokenize_batch(["a", "b"]))
    with pytest.raises(UsageError, match="2 rows for a session of 1"):
        model.batch_interact(**model.tokenize_batch(["a", "b"]))
    for wrong in ((None, mask), (ids, mask.tolist())):
        with pytest.raises(
            UsageError, match=r"is of type (NoneType|list); expected a tensor, as tokenize_query gives it"
        ):
            model.interact(*wrong)
    with pytest.raises(UsageError, match="stm_state is of type list; expected a tensor, as export_stm_state gives it"):
        model.load_stm_state([1])
    with pytest.raises(UsageError, match=r"a memory of shape \(2, 1, 5, 32\)"):
        model.load_stm_state(before[:, :, :5])
    with pytest.raises(UsageError, match="of 2 conversations"):
        model.load_stm_state(before.expand(-1, 2, -1, -1))
    with pytest.raises(UsageError, match="no number"):
        model.load_stm_state(before * float("nan"))
    with pytest.raises(UsageError, match=r"numbers are torch.bfloat16"):
        model.load_stm_state(before.bfloat16())
    for batch in ((True, None), (True, 0), (False, 2)):
        with pytest.raises(UsageError, match="batch_size is"):
            model.set_batch_mode(*batch)
    with pytest.raises(UsageError, match="use_batch_mode is 'yes'; it is True or False"):
        model.set_batch_mode("yes", 2)
    assert torch.equal(model.export_stm_state(), before)
    model.set_batch_mode(True, 1)
    with pytest.raises(UsageError, match="in batch mode"):
        model.interact(**query)
    larger = HybridTokenizer(model.tokenizer.vocabulary)
    larger.vocab_size += 1
    with pytest.raises(UsageError, match="has 601 tokens, the model 600"):
        model.set_tokenizer(larger)


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_who_says_nothing_is_refused(model: RxTBeta, blank: str) -> None:
    for call in (
        lambda: model.tokenize_query(blank),
        lambda: model.tokenize_batch(["a", blank]),
        lambda: model.tokenize_full_interaction(blank, blank),
        lambda: model.tokenize_full_interaction(blank, blank, think=blank),
    ):
        with pytest.raises(UsageError, match=f"{re.escape(repr(blank))} says nothing; give text that is not blank"):
            call()
    for query, answer in (("a", blank), (blank, "b")):
        ids = model.tokenize_full_interaction(query, answer)["input_ids"]
        assert ids.tolist() == [interaction_ids(model.tokenizer, query, answer)], "some of it is said"


def test_what_is_no_text_is_refused(model: RxTBeta) -> None:
    for call, kind in (
        (lambda: model.tokenize_query(None), "NoneType"),
        (lambda: model.tokenize_query(["a"]), "list"),
        (lambda: model.tokenize_batch(["a", 3]), "int"),
        (lambda: model.tokenize_full_interaction("a", None), "NoneType"),
        (lambda: model.tokenize_full_interaction("a", "b", think=b"c"), "bytes"),
    ):
        with pytest.raises(UsageError, match=f"got {kind}, expected text"):
            call()
    for texts in ("a b", None):
        with pytest.raises(UsageError, match="expected a list of texts"):
            model.tokenize_batch(texts)


def test_a_maximum_above_the_models_is_the_models(model: RxTBeta) -> None:
    query = model.tokenize_query("Hello?", 1024)
    assert query["input_ids"].tolist() == model.tokenize_query("Hello?")["input_ids"].tolist()
    with torch.no_grad():
        model.model.lm_head.bias[markers(model.tokenizer).end] = -1e4  # so that answers are as long as they may be
    start = model.export_stm_state()
    said = []
    for most in (1024, 64, None, 30):
        model.load_stm_state(start)
        said.append(list(model.interact(**query, max_seq_len=most, seed=1)))
    assert said[0] == said[1] == said[2] and said[3][:-2] == said[0][: len(said[3]) - 2] != said[0][:-2]


def test_an_update_that_fails_is_told_in_the_place_of_the_second_mark(
    model: RxTBeta, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(tokens: Tensor, mask: Tensor, state: MemoryState) -> MemoryState:
        raise RuntimeError("no room")

    before = model.export_stm_state()
    monkeypatch.setattr(model.model, "end_turn", broken)
    answer = model.interact(**model.tokenize_query("a"), max_seq_len=8)
    with pytest.raises(ClientError, match="no room"):
        for token in answer:
            assert token != -2
    monkeypatch.undo()
    assert torch.equal(model.export_stm_state(), before)
    assert list(model.interact(**model.tokenize_query("a"), max_seq_len=8))[-1] == -2


def test_interactions_of_both_surfaces_are_the_same(model: RxTBeta) -> None:
    ids = interaction_ids(model.tokenizer, "a", "b")
    assert model.tokenize_full_interaction("a", "b")["input_ids"].tolist() == [ids]
