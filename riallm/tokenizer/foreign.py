"""Tokenizers behind one protocol: our hybrid one, and Hugging Face's `tokenizer.json` (a GGUF file's becomes one).

Text of users never becomes a special token: it is encoded by a copy of the tokenizer that has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer

from riallm.core.errors import CheckpointError, UsageError
from riallm.tokenizer.hybrid import HybridTokenizer
from riallm.tokenizer.special import CLOSE, VALUED, opening
from riallm.tokenizer.text import Fim, find_ends, find_fim


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
    """A tokenizer of the library `tokenizers`, as `open_hf` reads it.

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
        alphabet = _alphabet(data)
        full = Tokenizer.from_str(json.dumps(data))
        full.add_tokens([_added(token) for content, token in added.items() if full.token_to_id(content) is None])
        ids = {content: index for content in added if (index := full.token_to_id(content)) is not None}
        specials = {content: index for content, index in ids.items() if _is_special(added[content])}
        plain = Tokenizer.from_str(json.dumps(_without(data, specials, ids)))
    except CheckpointError:
        raise
    except Exception as error:  # the library raises plain Exception for whatever it cannot read
        raise CheckpointError(
            f"tokenizer.json cannot be read ({type(error).__name__}: {error}); copy it again from where it is whole"
        ) from None
    fim = find_fim(specials)
    markers = fim.ids if fim is not None else ()
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    variables = {name: text for name in names if (text := _text(config.get(name)))}
    own = [*ends, *(specials[name] for name in (variables.get("eos_token"),) if name in specials)]
    return ForeignTokenizer(
        plain=plain,
        full=full,
        spelled=_spelled(full.get_vocab(with_added_tokens=True), ids, alphabet),
        specials=specials,
        hidden=frozenset([*(at for name, at in specials.items() if added[name].get("special")), *markers]),
        ends=find_ends(specials, own),
        start=_start(full),
        chat_template=_template(config.get("chat_template")),
        fim=fim,
        variables=variables,
    )


def _is_special(token: Mapping[str, Any]) -> bool:
    """Not every added token is: some tokenizers add runs of spaces so. Markers such as <tool_call> are, whatever the
    file says, since a user who writes one does not call a tool."""
    content = token["content"]
    return bool(token.get("special")) or (content[:1] in "<[" and content[-1:] in ">]" and len(content) > 2)


def _without(data: Mapping[str, Any], specials: Mapping[str, int], added: Mapping[str, int]) -> dict[str, Any]:
    """The tokenizer without its specials, from which no text can get to them."""
    model = dict(data["model"])
    vocab: Mapping[str, int] = model["vocab"]
    # The library counts added tokens through, unless the model has them under an id of their own.
    kept = {content: index for content, index in added.items() if content not in specials}
    needed = {model.get("unk_token")} | {f"<0x{byte:02X}>" for byte in range(256)}
    gone = {content for content in specials if content in vocab} - needed
    model["vocab"] = {text: at for text, at in vocab.items() if text not in gone} | kept
    if gone:
        model["merges"] = [merge for merge in model["merges"] if not gone & {_made(merge), *_parts(merge)}]
    left = [token for token in data.get("added_tokens") or [] if token["content"] in kept]
    return {**data, "added_tokens": left, "post_processor": None, "model": model}


def _parts(merge: str | Sequence[str]) -> Sequence[str]:
    return merge.split(" ", 1) if isinstance(merge, str) else merge


def _made(merge: str | Sequence[str]) -> str:
    return "".join(_parts(merge))


def _alphabet(data: Mapping[str, Any]) -> Literal["bytes", "pieces"]:
    """How tokens are written: GPT-2's letters for bytes, or pieces with ▁ for a space and <0x0A> for a byte."""
    kinds = _kinds(data.get("decoder")) | _kinds(data.get("pre_tokenizer"))
    model = data.get("model") or {}
    if model.get("type", "BPE") == "BPE" and "ByteLevel" in kinds:
        return "bytes"
    if model.get("type", "BPE") == "BPE" and model.get("byte_fallback"):
        return "pieces"
    raise CheckpointError(
        "the tokenizer is no BPE of bytes and none that falls back to bytes, so text would not come back as it was; "
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


def _spelled(vocab: Mapping[str, int], added: Mapping[str, int], alphabet: str) -> list[bytes]:
    spelled = [b""] * (max(vocab.values(), default=-1) + 1)
    letters = _letters()
    for text, at in vocab.items():
        if text in added:
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
