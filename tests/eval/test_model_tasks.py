"""Bits per byte, filled lines and given-back text: each measure agrees with a plain count of the same thing."""

from __future__ import annotations

import lzma
import math
import textwrap
from pathlib import Path

import pytest
import torch

from riallm.agent.client import Context
from riallm.data.corpus.rows import Document, Row
from riallm.eval.tasks import extraction, infill
from riallm.eval.tasks.bits import CacheModel, Text, model_bits, xz_bits
from riallm.models.load import TOKENIZER, load_ria
from riallm.models.ria import RIA
from riallm.nn.meta import TokenMeta
from riallm.testing.client import ScriptedClient
from riallm.testing.tiny import write_tiny
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.saved import load

CODE = Path(textwrap.__file__).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[RIA, HybridTokenizer]:
    folder = write_tiny(tmp_path_factory.mktemp("models") / "tiny", context=128)
    return load_ria(folder), load(folder / TOKENIZER)


def test_every_byte_is_predicted_once(tiny: tuple[RIA, HybridTokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny
    monkeypatch.setattr(RIA, "logits", lambda self, hidden: torch.zeros(*hidden.shape[:-1], tokenizer.vocab_size))
    files = [Text(package="p", path=f"{n}.py", data=CODE[:n].encode()) for n in (1, 40, 900, 4000)]
    num = sum(len(tokenizer.encode_bytes(text.data)) for text in files)
    assert model_bits(model, tokenizer, files) == pytest.approx(num * math.log2(tokenizer.vocab_size), rel=1e-5)


def test_a_short_file_has_the_bits_of_one_pass(tiny: tuple[RIA, HybridTokenizer]) -> None:
    model, tokenizer = tiny
    text = Text(package="p", path="a.py", data=b"def f(x):\n    return x\n")
    head, ids = tokenizer.valued("file", "a.py"), tokenizer.encode_bytes(text.data)
    with torch.inference_mode():
        tokens = torch.tensor([[*head, *ids]])
        log_probs = model.logits(model(tokens, TokenMeta.plain(1, tokens.shape[1])).hidden[0]).log_softmax(-1)
    bits = -sum(float(log_probs[len(head) + at - 1, token]) for at, token in enumerate(ids)) / math.log(2)
    assert model_bits(model, tokenizer, [text]) == pytest.approx(bits, rel=1e-4)


def test_the_rivals_remember_what_they_have_read() -> None:
    ids = list(CODE.encode()[:3000])
    cache = CacheModel(256)
    first, second = cache.bits(ids), cache.bits(ids)
    assert 0 < second < first / 3 < len(ids) * 8 / 3
    assert CacheModel(256).bits([7]) == 8.0
    one = Text(package="p", path="a.py", data=CODE.encode())
    assert xz_bits([one, one]) < 1.1 * xz_bits([one])
    assert xz_bits([one]) == 8 * len(lzma.compress(one.data, preset=9 | lzma.PRESET_EXTREME))


def line(text: str, group: str = "p") -> infill.Line:
    whole = f"def f(x):\n    {text}\n    return y\n\n\ndef g(x):\n    y = x + 1\n    return y\n"
    at = whole.index(text)
    context = Context(path="a.py", prefix=whole[:at], suffix=whole[at + len(text) :])
    return infill.Line(context=context, text=text, group=group, files={"a.py": whole})


def test_lines_that_are_filled_exactly_are_counted() -> None:
    known, new = line("y = x + 1"), line("y = x ** 77", "q")
    texts = {item.text: [item.text.replace(" ", "")] for item in (new,)}
    originals = {"a.py": new.files["a.py"]}
    found = infill.measure(ScriptedClient(infills=texts, originals=originals), [known, new])
    assert found["num"] == 2
    assert found["model"]["value"] == 0.5  # white space apart, the second is the line itself
    assert found["ngram"]["value"] == 0.5  # the first stands elsewhere; the second stands nowhere else


def test_a_continuation_is_verbatim_or_it_is_not(
    tiny: tuple[RIA, HybridTokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tiny
    document = Document(path="a.py", text=CODE)
    rows = [Row(package="p", version="1", split="train", documents=(document,))]
    asked = extraction.probes(rows, tokenizer, num=12, seed=0)
    ids = tokenizer.encode(CODE)
    at = next(at for at in range(len(ids)) if tuple(ids[at : at + extraction.PROMPT]) == asked[0].prompt)
    middle = at + extraction.PROMPT
    assert asked[0].follows == tuple(ids[middle : middle + extraction.CONTINUATION])
    given = extraction.continued(model, [probe.prompt for probe in asked[:2]], 6)
    tokens = list(asked[1].prompt)
    with torch.inference_mode():
        for _ in range(6):
            hidden = model(torch.tensor([tokens]), TokenMeta.plain(1, len(tokens))).hidden
            tokens.append(int(model.logits(hidden[0, -1]).argmax()))
    assert given[1] == tuple(tokens[-6:])
    assert extraction.measure(model, tokenizer, rows, num=6, seed=0)["verbatim"]["value"] == 0.0
    answers = {probe.prompt: probe.follows for probe in asked}
    monkeypatch.setattr(extraction, "continued", lambda model, prompts, num: [answers[prompt] for prompt in prompts])
    found = extraction.measure(model, tokenizer, rows, num=12, seed=0)
    assert found["verbatim_no_boilerplate"]["value"] == 1.0 and not found["passed"]
    twice = [*rows, Row(package="q", version="1", split="train", documents=(document,))]
    monkeypatch.setattr(extraction, "probes", lambda rows, tokenizer, num, seed: asked)
    common = extraction.measure(model, tokenizer, twice, num=12, seed=0)
    assert common["verbatim"]["value"] == 1.0 and common["passed"] and common["files"] == []
