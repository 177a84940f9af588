"""Tokenizers of other programs behind the protocol: as transformers reads them, but no text becomes a special token."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from riallm.core.errors import CheckpointError, UsageError
from riallm.tokenizer.foreign import ForeignTokenizer, HybridText, open_hf
from riallm.tokenizer.hybrid import HybridTokenizer

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SHOWN = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>")
TEXTS = ["", "def f(x):\n    return x  # é\n", "日本語 🎉\r\n\t ", " leading", "a" * 100, "it's 1234 <b>"]


def added(first: int, *, spaces: bool = False) -> list[dict[str, Any]]:
    """Added tokens as Qwen's tokenizer.json lists them."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    rows = [(name, True) for name in SPECIALS] + [(name, False) for name in SHOWN]
    rows += [("      ", False)] if spaces else []
    return [{"id": first + at, "content": name, "special": kind, **flags} for at, (name, kind) in enumerate(rows)]


@pytest.fixture(scope="module")
def qwen(texts: list[str]) -> dict[str, Any]:
    """A tokenizer.json in the layout of Qwen2.5, learned from a few modules."""
    made = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(pre_tokenizers_pattern(), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([cut, ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator(texts[:3], trainer)
    data: dict[str, Any] = json.loads(made.to_str())
    data["added_tokens"] = added(made.get_vocab_size())
    return data


def pre_tokenizers_pattern() -> Any:
    from tokenizers import Regex

    return Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def opened(data: dict[str, Any], **config: Any) -> ForeignTokenizer:
    return open_hf(json.dumps(data).encode(), config)


@pytest.mark.parametrize("text", TEXTS)
def test_ordinary_text_is_as_transformers_has_it_and_comes_back(qwen: dict[str, Any], text: str) -> None:
    theirs = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(qwen)))
    ours = opened(qwen)
    ids = ours.encode(text)
    assert ids == theirs.encode(text, add_special_tokens=False)
    assert ours.decode_bytes(ids) == text.encode()


def test_specials_are_specials_only_in_trusted_text(qwen: dict[str, Any]) -> None:
    theirs = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(qwen)))
    ours = opened(qwen)
    text = "<|im_start|>user\nx <tool_call> y<|im_end|><|endoftext|>"
    assert ours.encode(text, specials=True) == theirs.encode(text, add_special_tokens=False)
    plain = ours.encode(text)
    assert not set(plain) & set(ours.specials.values())
    assert ours.decode_bytes(plain) == text.encode()
    start, tool = ours.specials["<|im_start|>"], ours.specials["<tool_call>"]
    assert ours.pieces("<|im_start|>a<tool_call>") == [start, "a", tool]
    # A call of a tool is part of an answer; an end is not.
    assert ours.decode_bytes([start, tool]) == b"<tool_call>"
    assert ours.decode_bytes([start, tool], specials=True) == b"<|im_start|><tool_call>"


def test_what_the_files_say_beside_the_tokens(qwen: dict[str, Any]) -> None:
    ours = opened(qwen, eos_token="<|im_end|>", chat_template="{{ bos_token }}x", bos_token={"content": "<|im_start|>"})
    assert ours.ends[0] == ours.specials["<|im_end|>"]
    assert ours.specials["<|endoftext|>"] in ours.ends
    assert ours.chat_template == "{{ bos_token }}x"
    assert ours.variables == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert ours.vocab_size == 900 + len(SPECIALS) + len(SHOWN)
    assert ours.start == ()
    fim = ours.fim
    assert fim is not None
    assert (fim.prefix, fim.file, fim.repo) == (ours.specials["<|fim_prefix|>"], ours.specials["<|file_sep|>"], None)
    assert set(fim.ids) <= ours.hidden
    assert open_hf(json.dumps(qwen).encode(), {}, ends=[7]).ends[0] == 7
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert opened(qwen, chat_template=named).chat_template == "d"


def test_added_tokens_of_the_configuration_count(qwen: dict[str, Any]) -> None:
    first = 900
    config = {str(token["id"]): {**token} for token in added(first)}
    bare = {**qwen, "added_tokens": []}
    ours = opened(bare, added_tokens_decoder=config)
    assert ours.specials == opened(qwen).specials


def test_runs_of_spaces_that_were_added_stay_tokens_of_text(qwen: dict[str, Any]) -> None:
    data = {**qwen, "added_tokens": added(900, spaces=True)}
    ours = opened(data)
    spaces = 900 + len(SPECIALS) + len(SHOWN)
    assert spaces in ours.encode("if a:\n      b")
    assert ours.decode_bytes(ours.encode("if a:\n      b")) == b"if a:\n      b"
    assert spaces not in ours.specials.values()


def test_a_start_that_the_tokenizer_puts_before_texts(qwen: dict[str, Any]) -> None:
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [901], "tokens": ["<|im_start|>"]}},
    }
    ours = opened({**qwen, "post_processor": template})
    assert ours.start == (901,)
    assert ours.encode("a") == opened(qwen).encode("a")


def pieces_json() -> dict[str, Any]:
    """A tokenizer.json in the layout of Llama 2: pieces, spaces as ▁, bytes for the rest; the specials have ids among
    the ordinary tokens, and merges that lead to one of them."""
    vocab = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab += ["▁", "a", "b", "ab", "▁ab", "<", "s", ">", "<s", "▁a"]
    merges = ["a b", "▁ ab", "< s", "<s >", "▁ a"]
    model = models.BPE(
        {text: at for at, text in enumerate(vocab)},
        [tuple(merge.split(" ")) for merge in merges],  # type: ignore[misc]
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    data: dict[str, Any] = json.loads(made.to_str())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    data["added_tokens"] = [{"id": at, "content": text, **flags} for at, text in enumerate(vocab[:3])]
    return data


def test_pieces_with_bytes() -> None:
    ours = opened(pieces_json(), eos_token="</s>")
    assert ours.decode_bytes(ours.encode("ab é\n")) == " ab é\n".encode(), (
        "the space in front belongs to the first word"
    )
    assert ours.ends == (2,)
    plain = ours.encode("<s>")
    assert 1 not in plain
    assert ours.decode_bytes(plain) == b" <s>"
    assert ours.encode("<s>ab", specials=True)[0] == 1
    assert ours.decode_bytes([1, 261], specials=True) == b"<s>b"


def test_what_cannot_be_served_is_said(qwen: dict[str, Any]) -> None:
    word = {"version": "1.0", "model": {"type": "WordPiece", "unk_token": "u", "vocab": {"u": 0}}, "added_tokens": []}
    with pytest.raises(CheckpointError, match="falls back to bytes"):
        opened(word)
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_hf(b"{", {})
    with pytest.raises(CheckpointError, match="cannot be read"):
        opened({**qwen, "added_tokens": [{"id": 1}]})
    with pytest.raises(UsageError, match="not in the vocabulary"):
        opened(qwen).decode_bytes([99_999])


def test_lone_surrogates_are_no_error(qwen: dict[str, Any]) -> None:
    assert opened(qwen).encode("a\ud800")


def test_our_own_tokenizer_behind_the_protocol(tokenizer: HybridTokenizer) -> None:
    ours = HybridText(tokenizer)
    text = "<|fim_prefix|> x |> <|file:a.py|>"
    assert not set(ours.encode(text)) & ours.hidden
    assert ours.decode_bytes(ours.encode(text)) == text.encode()
    assert ours.pieces("a<|fim_prefix|>|>") == ["a", tokenizer.special("<|fim_prefix|>"), "|>"]
    assert ours.decode_bytes([tokenizer.special("<|pad|>")]) == b""
    assert tokenizer.special("<|end_of_text|>") in ours.ends
    assert ours.fim is not None
    assert ours.fim.order == "spm"
