"""Tokenizers between tokenizer.json and GGUF vocabularies: the same ids for the same text, whoever reads them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from riallm.checkpoint.gguf import GGUFVocabulary
from riallm.core.errors import CheckpointError
from riallm.models import foreign_tokenizer
from riallm.models.foreign_tokenizer import PATTERNS, files_of, keys_of, tokenizer_json, vocabulary_of

TEXTS = [
    "def add(a, b):\n    return a + b  # sum of 12345\n",
    "  Zwei   Größen\t\tübereinander;\r\n\r\n'll they're I'M",
    "naïve 漢字 🙂 \u0000 x\n\n\n   y",
    "",
    "cafe\u0301 and caf\u00e9",
    "<|end|> is text, <|begin|> too",
]


def trained(name: str) -> Tokenizer:
    """A small tokenizer of the kind that a GGUF file calls by this name."""
    if name == "llama":
        made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        firsts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=firsts, show_progress=False)
        made.train_from_iterator([text.replace("🙂", "") for text in TEXTS * 3], trainer)
        told = json.loads(made.to_str())
        told["added_tokens"] = told["added_tokens"][:3]
        made = Tokenizer.from_str(json.dumps(told))
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        return made
    made = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    if name in PATTERNS:
        cut = pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    elif name == "smollm":
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    else:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "qwen2":
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(TEXTS * 3, trainer)
    made.add_special_tokens([AddedToken("<|begin|>", special=True), AddedToken("<|end|>", special=True)])
    made.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    if name == "llama-bpe":
        begin = made.token_to_id("<|begin|>")
        made.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
        )
    return made


def files(name: str, **settings: Any) -> dict[str, bytes]:
    roles = (
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        if name == "llama"
        else {"bos_token": {"content": "<|begin|>"}, "eos_token": "<|end|>"}
    )
    return {
        "tokenizer.json": trained(name).to_str().encode(),
        "tokenizer_config.json": json.dumps({**roles, **settings}).encode(),
        "chat_template.jinja": "{{ messages }} ö".encode(),
    }


NAMES = ["llama", "llama-bpe", "qwen2", "gpt-2", "smollm"]


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_comes_back_from_a_vocabulary(name: str) -> None:
    before = trained(name)
    size = before.get_vocab_size() + 5
    vocabulary = vocabulary_of(files(name), size=size)
    assert vocabulary is not None and len(vocabulary.tokens) == len(vocabulary.types) == size
    assert vocabulary.pre == ("default" if name == "llama" else name)
    assert vocabulary.chat_template == "{{ messages }} ö"
    assert vocabulary.types[-5:] == (foreign_tokenizer.UNUSED,) * 5 and vocabulary.tokens[-1] == f"[PAD{size - 1}]"
    begin, _ = foreign_tokenizer.begins_and_ends(vocabulary)
    assert begin == (name in ("llama", "llama-bpe"))
    told = tokenizer_json(vocabulary)
    after = Tokenizer.from_str(json.dumps(told))
    for text in TEXTS:
        for special in (True, False):
            left, right = (one.encode(text, add_special_tokens=special).ids for one in (before, after))
            assert left == right, (text, special)
        expected = before.decode(before.encode(text).ids)
        assert after.decode(before.encode(text).ids) == (expected.removeprefix(" ") if name == "llama" else expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_vocabulary_is_carried_whole(name: str) -> None:
    vocabulary = vocabulary_of(files(name), size=500)
    assert vocabulary is not None
    made = files_of(vocabulary)
    assert vocabulary_of(made, size=500) == vocabulary, "vocabulary.json is the file's own data"
    del made["vocabulary.json"]
    again = vocabulary_of(made, size=500)
    assert again is not None
    told, expected = dataclasses.asdict(again), dataclasses.asdict(vocabulary)
    for one in (told, expected):  # who fills the embeddings up is an ordinary token afterwards
        one["types"] = tuple(1 if kind == foreign_tokenizer.UNUSED else kind for kind in one["types"])
    if name == "llama":  # scores are ranks among merges, of which a vocabulary tells more than were written
        told.pop("scores"), expected.pop("scores")
    assert told == expected


def test_transformers_reads_the_files(tmp_path: Path) -> None:
    import transformers

    for name in ("llama", "qwen2"):
        vocabulary = vocabulary_of(files(name), size=500)
        assert vocabulary is not None
        folder = tmp_path / name
        folder.mkdir()
        for file, data in files_of(vocabulary).items():
            (folder / file).write_bytes(data)
        found = transformers.AutoTokenizer.from_pretrained(folder)
        for text in TEXTS:
            assert found(text)["input_ids"] == trained(name).encode(text).ids
        assert found.chat_template == "{{ messages }} ö"
        assert found.eos_token == ("</s>" if name == "llama" else "<|end|>")


def test_scores_order_pieces_as_merges_do() -> None:
    told = json.loads(trained("llama").to_str())
    vocabulary = vocabulary_of(files("llama"), size=500)
    assert vocabulary is not None and vocabulary.merges == ()
    place = {token: at for at, token in enumerate(vocabulary.tokens)}
    results = [vocabulary.scores[place["".join(merge)]] for merge in told["model"]["merges"]]
    assert results == sorted(results, reverse=True) and len(set(results)) > 50
    assert vocabulary.types[:4] == (2, 3, 3, 6)


def test_the_better_piece_is_made_first_though_its_id_is_later() -> None:
    tokens = ("<unk>", "a", "b", "c", "ab", "bc")
    vocabulary = GGUFVocabulary(
        model="llama",
        tokens=tokens,
        types=(2, 1, 1, 1, 1, 1),
        merges=(),
        scores=(0.0, -9.0, -9.0, -9.0, -2.0, -1.0),
        pre=None,
        special={"unknown": 0},
        flags={"add_space_prefix": False, "add_bos_token": False},
        chat_template=None,
    )
    made = Tokenizer.from_str(json.dumps(tokenizer_json(vocabulary)))
    assert made.encode("abc").tokens == ["a", "bc"]


@pytest.mark.parametrize(("pre", "expected"), [("llama-bpe", ["ab"]), ("qwen2", ["a", "b"])])
def test_llama_3_takes_a_token_whole_that_no_merge_makes(pre: str, expected: list[str]) -> None:
    vocabulary = GGUFVocabulary(
        model="gpt2",
        tokens=("a", "b", "ab"),
        types=(1, 1, 1),
        merges=(),
        scores=(),
        pre=pre,
        special={},
        flags={},
        chat_template=None,
    )
    made = Tokenizer.from_str(json.dumps(tokenizer_json(vocabulary)))
    assert made.encode("ab").tokens == expected


def test_keys_have_the_names_that_llama_cpp_reads() -> None:
    vocabulary = vocabulary_of(files("llama-bpe", add_bos_token=False), size=400)
    assert vocabulary is not None
    keys = keys_of(vocabulary)
    assert keys["tokenizer.ggml.model"] == "gpt2" and keys["tokenizer.ggml.pre"] == "llama-bpe"
    assert keys["tokenizer.ggml.add_bos_token"] is False
    assert keys["tokenizer.ggml.tokens"][keys["tokenizer.ggml.bos_token_id"]] == "<|begin|>"
    assert keys["tokenizer.ggml.tokens"][keys["tokenizer.ggml.eos_token_id"]] == "<|end|>"
    assert keys["tokenizer.chat_template"] == "{{ messages }} ö"
    think = keys["tokenizer.ggml.tokens"].index("<think>")
    assert keys["tokenizer.ggml.token_type"][think] == foreign_tokenizer.USER
    assert all(merge.count(" ") == 1 for merge in keys["tokenizer.ggml.merges"])


def test_what_cannot_be_said_is_refused() -> None:
    made = files("gpt-2")
    with pytest.raises(CheckpointError, match=r"has 333 tokens, the embeddings have 300 rows"):
        vocabulary_of(made, size=300)
    told = json.loads(made["tokenizer.json"])

    def refused(change: dict[str, Any], complaint: str) -> None:
        with pytest.raises(CheckpointError, match=complaint):
            vocabulary_of({**made, "tokenizer.json": json.dumps({**told, **change}).encode()}, size=400)

    refused({"model": {"type": "WordPiece"}}, "no model of byte pairs")
    refused({"pre_tokenizer": {"type": "Whitespace"}}, "has no name in GGUF files .* known are those of gpt-2, smollm")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is no complete JSON"):
        vocabulary_of({"tokenizer.json": b"{"}, size=400)
    assert vocabulary_of({}, size=400) is None
    with pytest.raises(CheckpointError, match=r"is in tokenizer\.model alone; write tokenizer\.json beside it"):
        vocabulary_of({"tokenizer.model": b""}, size=400)


def test_what_other_files_say_about_tokens_is_heard() -> None:
    made = files("gpt-2")
    settings = {
        "added_tokens_decoder": {"340": {"content": "<late>", "special": True}},
        "chat_template": [{"name": "tools", "template": "a"}, {"name": "default", "template": "b"}],
    }
    found = vocabulary_of(
        {
            "tokenizer.json": made["tokenizer.json"],
            "tokenizer_config.json": json.dumps(settings).encode(),
            "generation_config.json": b'{"bos_token_id": 330, "eos_token_id": [331, 340]}',
        },
        size=400,
    )
    assert found is not None
    assert (found.tokens[340], found.types[340]) == ("<late>", foreign_tokenizer.CONTROL)
    assert found.chat_template == "b" and found.special == {"bos": 330, "eos": 331}


def test_a_pattern_that_is_not_known_leaves_the_vocabulary_alone() -> None:
    vocabulary = vocabulary_of(files("gpt-2"), size=400)
    assert vocabulary is not None
    odd = dataclasses.replace(vocabulary, pre="tekken")
    assert tokenizer_json(odd) is None
    assert set(files_of(odd)) == {"vocabulary.json", "chat_template.jinja"}
    assert vocabulary_of(files_of(odd), size=400) == odd
    assert tokenizer_json(dataclasses.replace(vocabulary, model="bert")) is None


def test_a_broken_token_survives() -> None:
    """Some files have tokens that are no UTF-8."""
    odd = GGUFVocabulary(
        model="gpt2",
        tokens=("a", b"\xff".decode("utf-8", "surrogateescape")),
        types=(1, 1),
        merges=(),
        scores=(),
        pre="tekken",
        special={},
        flags={},
        chat_template=None,
    )
    assert vocabulary_of(files_of(odd), size=2) == odd
