"""Tokenizers behind one protocol: our hybrid one, Hugging Face's `tokenizer.json`, and what a GGUF file lists.

Text of users never becomes a special token: it is encoded by a copy of the tokenizer that has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from riallm.core.errors import CheckpointError, UsageError
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.special import CLOSE, VALUED, opening
from riallm.tokenizer.text import Fim, find_ends, find_fim

_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
PATTERNS: dict[str, str] = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen2": rf"{_SHORT}|{_LETTERS}|\p{{N}}|{_REST}",
    "llama-bpe": rf"{_SHORT}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}",
}
"""How text is cut before merges, by the name that GGUF has for it (`tokenizer.ggml.pre`)."""

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
"""Types of tokens in GGUF (`tokenizer.ggml.token_type`)."""


class HybridText:
    """Our hybrid tokenizer as a `TextTokenizer`."""

    def __init__(self, tokenizer: HybridTokenizer) -> None:
        self._tokenizer = tokenizer
        names = {special.name for special in tokenizer.vocabulary.specials}
        self.vocab_size = tokenizer.vocab_size
        self.hidden = frozenset(tokenizer.special(name) for name in names)
        # Halves of markers with a value are no names: `|>` alone occurs in ordinary code.
        whole = sorted(names - {CLOSE, *map(opening, VALUED)})
        self.specials: Mapping[str, int] = {name: tokenizer.special(name) for name in whole}
        self.ends = find_ends(self.specials)
        self.start: tuple[int, ...] = ()
        self.chat_template: str | None = None
        # What stands before the hole comes last in what RIA models read.
        self.fim: Fim | None = find_fim(self.specials, order="spm")

    @property
    def tokenizer(self) -> HybridTokenizer:
        """The tokenizer behind it, for markers with a value."""
        return self._tokenizer

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        return self._tokenizer.encode(text, specials=specials)

    def pieces(self, text: str) -> list[int | str]:
        return _pieces(text, self.specials)

    def decode_bytes(self, ids: Sequence[int], *, specials: bool = False) -> bytes:
        return self._tokenizer.decode_bytes(ids, specials=specials)


class ForeignTokenizer:
    """A tokenizer of the library `tokenizers`, read as `open_hf` and `from_gguf` make it.

    plain: without any added token. full: with them. spelled: the bytes of every id, b"" for those that there are not.
    """

    def __init__(
        self,
        *,
        plain: Tokenizer,
        full: Tokenizer,
        spelled: Sequence[bytes],
        specials: Mapping[str, int],
        hidden: frozenset[int],
        ends: tuple[int, ...],
        start: tuple[int, ...],
        chat_template: str | None,
        fim: Fim | None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._plain, self._full, self._spelled = plain, full, spelled
        self.vocab_size = len(spelled)
        self.specials, self.hidden, self.ends, self.start = specials, hidden, ends, start
        self.chat_template, self.fim = chat_template, fim
        self.variables: Mapping[str, str] = variables or {}

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        library = self._full if specials else self._plain
        return list(library.encode(_clean(text), add_special_tokens=False).ids)

    def pieces(self, text: str) -> list[int | str]:
        return _pieces(text, self.specials)

    def decode_bytes(self, ids: Sequence[int], *, specials: bool = False) -> bytes:
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise UsageError(f"token {index} is not in the vocabulary, which has ids 0 to {self.vocab_size - 1}")
        return b"".join(self._spelled[index] for index in ids if specials or index not in self.hidden)


def open_hf(
    tokenizer_json: bytes, config: Mapping[str, Any] | None = None, *, ends: Sequence[int] = ()
) -> ForeignTokenizer:
    """From `tokenizer.json`, `tokenizer_config.json` (read as JSON) and the end ids of `generation_config.json`.

    Raises CheckpointError for files that are damaged, and for kinds that lose bytes (WordPiece and the like).
    """
    config = config or {}
    try:
        data = json.loads(tokenizer_json)
        added = {token["content"]: token for token in data.get("added_tokens") or []}
        for index, token in (config.get("added_tokens_decoder") or {}).items():
            added.setdefault(token["content"], {**token, "id": int(index)})
        full = Tokenizer.from_str(json.dumps(data))
        bare = {**data, "added_tokens": [], "post_processor": None}
        plain = Tokenizer.from_str(json.dumps(bare))
    except Exception as error:  # the library raises plain Exception for whatever it cannot read
        raise CheckpointError(
            f"tokenizer.json cannot be read ({type(error).__name__}: {error}); copy it again from where it is whole"
        ) from None
    missing = [token for content, token in added.items() if full.token_to_id(content) is None]
    full.add_tokens([_added(token) for token in missing])
    specials: dict[str, int] = {content: index for content in added if (index := full.token_to_id(content)) is not None}
    hidden = frozenset(index for content, index in specials.items() if added[content].get("special"))
    variables = {
        name: text for name in ("bos_token", "eos_token", "pad_token", "unk_token") if (text := _text(config.get(name)))
    }
    own = [*ends, *(specials[name] for name in (variables.get("eos_token"),) if name in specials)]
    return ForeignTokenizer(
        plain=plain,
        full=full,
        spelled=_spelled(full.get_vocab(with_added_tokens=True), specials, _alphabet(data)),
        specials=specials,
        hidden=hidden,
        ends=find_ends(specials, own),
        start=_start(full),
        chat_template=_template(config.get("chat_template")),
        fim=find_fim(specials),
        variables=variables,
    )


def from_gguf(
    *,
    model: str,
    tokens: Sequence[str],
    types: Sequence[int],
    merges: Sequence[str] = (),
    scores: Sequence[float] = (),
    pre: str = "gpt2",
    bos: int | None = None,
    eos: int | None = None,
    add_bos: bool = False,
    space_first: bool = True,
    chat_template: str | None = None,
) -> ForeignTokenizer:
    """From the lists of a GGUF file. model: "gpt2" (merges, `pre` one of PATTERNS) or "llama" (scores).

    Raises CheckpointError for another model or pattern, and for lists that do not fit together.
    """
    if len(types) != len(tokens) or (model == "llama" and len(scores) != len(tokens)):
        raise CheckpointError(
            f"{len(tokens)} tokens have {len(types)} types and {len(scores)} scores; the file is damaged, copy it again"
        )
    specials = {tokens[at]: at for at, kind in enumerate(types) if kind in (CONTROL, USER)}
    ordinary = {tokens[at]: at for at, kind in enumerate(types) if kind not in (CONTROL, USER, UNUSED)}
    if model == "gpt2":
        if pre not in PATTERNS:
            raise CheckpointError(f"the text is cut by '{pre}', which is not known; there are {', '.join(PATTERNS)}")
        plain, full = (_byte_level(ordinary, merges, pre) for _ in range(2))
        alphabet: Literal["bytes", "pieces"] = "bytes"
    elif model == "llama":
        plain, full = (_scored(ordinary, tokens, types, scores, space_first) for _ in range(2))
        alphabet = "pieces"
    else:
        raise CheckpointError(f"a tokenizer of kind '{model}' cannot be read; there are gpt2 and llama")
    known = {**ordinary, **specials}
    full = _with_added(full, [(tokens[at], at, types[at] == CONTROL) for at in specials.values()])
    return ForeignTokenizer(
        plain=plain,
        full=full,
        spelled=_spelled(known, specials, alphabet, size=len(tokens)),
        specials=specials,
        hidden=frozenset(at for at in specials.values() if types[at] == CONTROL),
        ends=find_ends(specials, () if eos is None else (eos,)),
        start=(bos,) if add_bos and bos is not None else (),
        chat_template=chat_template,
        fim=find_fim(specials),
        variables={name: tokens[at] for name, at in (("bos_token", bos), ("eos_token", eos)) if at is not None},
    )


def _byte_level(vocab: Mapping[str, int], merges: Sequence[str], pre: str) -> Tokenizer:
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    try:
        # Llama 3 makes a piece that is a token one token, whether or not merges lead to it.
        made = Tokenizer(models.BPE(dict(vocab), pairs, ignore_merges=pre == "llama-bpe"))
    except Exception as error:
        raise CheckpointError(f"merges and tokens do not fit together ({error}); copy the file again") from None
    cut = pre_tokenizers.Split(Regex(PATTERNS[pre]), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    return made


def _scored(
    vocab: Mapping[str, int], tokens: Sequence[str], types: Sequence[int], scores: Sequence[float], space_first: bool
) -> Tokenizer:
    """Merges in the order of the scores of what they make, as transformers converts sentencepiece's BPE."""
    merges = []
    for text, at in vocab.items():
        if types[at] == NORMAL:
            for cut in range(1, len(text)):
                left, right = text[:cut], text[cut:]
                if left in vocab and right in vocab:
                    merges.append((-scores[at], vocab[left], vocab[right], left, right))
    merges.sort(key=lambda merge: merge[:3])
    unknown = next((tokens[at] for at, kind in enumerate(types) if kind == UNKNOWN), None)
    pairs = [merge[3:] for merge in merges]
    made = Tokenizer(models.BPE(dict(vocab), pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    first = [normalizers.Prepend("▁")] if space_first else []
    made.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    return made


def _with_added(tokenizer: Tokenizer, added: Sequence[tuple[str, int, bool]]) -> Tokenizer:
    """With added tokens under ids of their own, which only the JSON form can say."""
    data = json.loads(tokenizer.to_str())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    listed = sorted(added, key=lambda each: each[1])
    data["added_tokens"] = [{"id": at, "content": text, "special": special, **flags} for text, at, special in listed]
    data["model"]["vocab"] |= {text: at for text, at, _ in listed}
    return Tokenizer.from_str(json.dumps(data))


def _alphabet(data: Mapping[str, Any]) -> Literal["bytes", "pieces"]:
    """How tokens are written: GPT-2's letters for bytes, or pieces with ▁ for a space and <0x0A> for a byte."""
    kinds = _kinds(data.get("decoder")) | _kinds(data.get("pre_tokenizer"))
    if "ByteLevel" in kinds:
        return "bytes"
    if (data.get("model") or {}).get("byte_fallback"):
        return "pieces"
    raise CheckpointError(
        "the tokenizer is neither byte-level nor falls back to bytes, so text does not come back as it was; "
        "models with such a tokenizer are not served"
    )


def _kinds(part: Any) -> set[str]:
    """Names of the kinds in a part of tokenizer.json, those inside sequences too."""
    if not isinstance(part, dict):
        return set()
    found = {str(part.get("type"))}
    for inner in [*part.get("decoders", ()), *part.get("pretokenizers", ())]:
        found |= _kinds(inner)
    return found


def _spelled(
    vocab: Mapping[str, int], specials: Mapping[str, int], alphabet: str, *, size: int | None = None
) -> list[bytes]:
    spelled = [b""] * max(size or 0, max(vocab.values(), default=-1) + 1)
    letters = _letters()
    added = set(specials.values())
    for text, at in vocab.items():
        if at in added:
            spelled[at] = text.encode()
        elif alphabet == "bytes":
            spelled[at] = b"".join(letters.get(letter, letter.encode()) for letter in text)
        elif re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", text):
            spelled[at] = bytes([int(text[3:5], 16)])
        else:
            spelled[at] = text.replace("▁", " ").encode()
    return spelled


@lru_cache(maxsize=1)
def _letters() -> dict[str, bytes]:
    """GPT-2's letter for each byte (`bytes_to_unicode` of its encoder.py), turned around."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [at for at in range(256) if at not in shown]
    return {chr(at): bytes([at]) for at in shown} | {chr(256 + at): bytes([byte]) for at, byte in enumerate(others)}


def _pieces(text: str, specials: Mapping[str, int]) -> list[int | str]:
    if not specials:
        return [text] if text else []
    longest = sorted(specials, key=len, reverse=True)
    cut = re.split("(" + "|".join(map(re.escape, longest)) + ")", text)
    return [specials.get(part, part) for part in cut if part]


def _clean(text: str) -> str:
    # Lone surrogates are no UTF-8, which the library insists on.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _start(full: Tokenizer) -> tuple[int, ...]:
    """What the library puts before any text."""
    with_start = full.encode("a", add_special_tokens=True).ids
    bare = full.encode("a", add_special_tokens=False).ids
    for at in range(len(with_start) - len(bare) + 1):
        if with_start[at : at + len(bare)] == bare:
            return tuple(with_start[:at])
    return ()


def _added(token: Mapping[str, Any]) -> AddedToken:
    flags = {
        name: bool(token.get(name, False)) for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
    }
    return AddedToken(token["content"], **flags)


def _text(value: Any) -> str | None:
    """A token of tokenizer_config.json: text, or an object that has it."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _template(value: Any) -> str | None:
    """A chat template: one text, or a list of named ones, of which the default is taken."""
    if isinstance(value, list):
        named = {each.get("name"): each.get("template") for each in value if isinstance(each, dict)}
        value = named.get("default") or named.get("tool_use")
    return value if isinstance(value, str) else None
