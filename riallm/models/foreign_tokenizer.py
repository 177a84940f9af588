"""Tokenizers of other programs as plain data: a GGUF vocabulary from and to Hugging Face's tokenizer.json.

Both say the same in other words: byte pairs ("gpt2") with the name of the pattern that cuts text, or sentencepiece's
pairs ("llama") with scores. `vocabulary.json` beside it is the GGUF's own data, so that nothing is lost on the way
back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from riallm.checkpoint.gguf import GGUFVocabulary
from riallm.core.config import from_json
from riallm.core.errors import CheckpointError, UsageError

VOCABULARY, TOKENIZER, SETTINGS = "vocabulary.json", "tokenizer.json", "tokenizer_config.json"
TEMPLATE, GENERATION = "chat_template.jinja", "generation_config.json"
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"
"""What sentencepiece writes for a space."""

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {"llama-bpe": _WORDS + r"\p{N}{1,3}" + _REST, "qwen2": _WORDS + r"\p{N}" + _REST}
"""GGUF's name of a pattern -> the pattern of a Split."""
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
PARTS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_BYTES],
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTES],
} | {
    name: [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {**_BYTES, "use_regex": False},
    ]
    for name, pattern in PATTERNS.items()
}
"""GGUF's name of a pattern -> the pre-tokenizers that do the same."""
ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "default": "gpt-2"}
BEGINS = {"llama-bpe"}
"""Patterns whose texts begin with the first token unless the file says otherwise."""


def files_of(vocabulary: GGUFVocabulary) -> dict[str, bytes]:
    """The files of a model's folder: the vocabulary itself, and tokenizer.json where the pattern is known."""
    files = {VOCABULARY: _text(asdict(vocabulary))}
    if vocabulary.chat_template is not None:
        files[TEMPLATE] = vocabulary.chat_template.encode("utf-8", "surrogateescape")
    made = tokenizer_json(vocabulary)
    if made is not None:
        files[TOKENIZER] = _text(made)
        roles = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token", "unknown": "unk_token"}
        named = {roles[role]: vocabulary.tokens[place] for role, place in vocabulary.special.items() if role in roles}
        begin, end = begins_and_ends(vocabulary)
        told = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": begin, "add_eos_token": end, **named}
        files[SETTINGS] = _text(told)
    return files


def begins_and_ends(vocabulary: GGUFVocabulary) -> tuple[bool, bool]:
    """Whether a text begins with the first token, and ends with the last."""
    pre = ALIASES.get(vocabulary.pre or "", vocabulary.pre)
    begin = vocabulary.flags.get("add_bos_token", vocabulary.model == "llama" or pre in BEGINS)
    return begin and "bos" in vocabulary.special, bool(vocabulary.flags.get("add_eos_token", False))


def tokenizer_json(vocabulary: GGUFVocabulary) -> dict[str, Any] | None:
    """Hugging Face's tokenizer.json; None for a kind or a pattern that is not known here."""
    if vocabulary.model == "gpt2":
        made = _of_pairs(vocabulary)
    elif vocabulary.model == "llama" and vocabulary.scores:
        made = _of_pieces(vocabulary)
    else:
        return None
    if made is None:
        return None
    types = vocabulary.types or (NORMAL,) * len(vocabulary.tokens)
    added = [
        {
            "id": at,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in (UNKNOWN, CONTROL),
        }
        for at, (token, kind) in enumerate(zip(vocabulary.tokens, types, strict=True))
        if kind in (UNKNOWN, CONTROL, USER)
    ]
    plain = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    return {**plain, **made, "post_processor": _around(vocabulary)}


def _of_pairs(vocabulary: GGUFVocabulary) -> dict[str, Any] | None:
    pre = ALIASES.get(vocabulary.pre or "default", vocabulary.pre or "default")
    if pre not in PARTS:
        return None
    return {
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PARTS[pre]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == "llama-bpe",
            "vocab": {token: at for at, token in enumerate(vocabulary.tokens)},
            "merges": [merge.split(" ", 1) for merge in vocabulary.merges],
        },
    }


def _of_pieces(vocabulary: GGUFVocabulary) -> dict[str, Any]:
    """Sentencepiece's pairs: two neighbours become one when that is a piece, the one of the best score first."""
    place = {token: at for at, token in enumerate(vocabulary.tokens)}
    merges = []
    for token, score in zip(vocabulary.tokens, vocabulary.scores, strict=True):
        splits = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = sorted(((place[a], place[b]), (a, b)) for a, b in splits if a in place and b in place)
        merges += [(-score, pair) for _, pair in known]
    merges.sort(key=lambda item: item[0])
    first = vocabulary.flags.get("add_space_prefix", True)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    unknown = vocabulary.special.get("unknown")
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if first:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*([{"type": "Prepend", "prepend": SPACE}] if first else []), replace],
        },
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None if unknown is None else vocabulary.tokens[unknown],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": place,
            "merges": [list(pair) for _, pair in merges],
        },
    }


def _around(vocabulary: GGUFVocabulary) -> dict[str, Any] | None:
    """What is put around a text."""
    begin, end = begins_and_ends(vocabulary)
    roles = [*(["bos"] if begin else []), "", *(["eos"] if end and "eos" in vocabulary.special else [])]
    if len(roles) == 1:
        return None
    names = {role: vocabulary.tokens[vocabulary.special[role]] for role in roles if role}

    def row(sequences: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for at, letter in enumerate(sequences):
            for role in roles:
                if role:
                    found.append({"SpecialToken": {"id": names[role], "type_id": at}})
                else:
                    found.append({"Sequence": {"id": letter, "type_id": at}})
        return found

    tokens = {
        names[role]: {"id": names[role], "ids": [vocabulary.special[role]], "tokens": [names[role]]} for role in names
    }
    return {"type": "TemplateProcessing", "single": row("A"), "pair": row("AB"), "special_tokens": tokens}


def vocabulary_of(files: Mapping[str, bytes], *, size: int) -> GGUFVocabulary | None:
    """The GGUF vocabulary of a folder's files, as long as the embeddings (`size` rows); None without a tokenizer.
    Raises CheckpointError for a tokenizer that GGUF cannot say."""
    if VOCABULARY in files:
        try:
            return from_json(GGUFVocabulary, _parsed(files, VOCABULARY), where=VOCABULARY)
        except UsageError as error:
            raise CheckpointError(str(error)) from None
    if TOKENIZER not in files:
        other = sorted({"tokenizer.model", "vocab.json"} & set(files))
        if other:
            raise CheckpointError(
                f"the model's tokenizer is in {other[0]} alone; write {TOKENIZER} beside it, as transformers' "
                "save_pretrained does, and try again"
            )
        return None
    told, settings = _parsed(files, TOKENIZER), _parsed(files, SETTINGS) if SETTINGS in files else {}
    model = told.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise CheckpointError(f"{TOKENIZER} has no model of byte pairs, which is the only kind that is written to GGUF")
    added = {int(at): entry for at, entry in settings.get("added_tokens_decoder", {}).items()}
    added |= {entry["id"]: entry for entry in told.get("added_tokens", [])}
    tokens: list[str | None] = [None] * max([size, *(at + 1 for at in (*model["vocab"].values(), *added))])
    if len(tokens) > size:
        raise CheckpointError(f"{TOKENIZER} has {len(tokens)} tokens, the embeddings have {size} rows")
    for token, at in model["vocab"].items():
        tokens[at] = token
    for at, entry in added.items():
        tokens[at] = entry["content"]
    pieces = bool(model.get("byte_fallback"))
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    special = _special(settings, tokens, _parsed(files, GENERATION) if GENERATION in files else {})
    begin = settings.get("add_bos_token", _template_has(told, tokens, special.get("bos")))
    template = files.get(TEMPLATE)
    return GGUFVocabulary(
        model="llama" if pieces else "gpt2",
        tokens=tuple(f"[PAD{at}]" if token is None else token for at, token in enumerate(tokens)),
        types=tuple(_type(at, token, added, model, pieces) for at, token in enumerate(tokens)),
        merges=() if pieces else tuple(" ".join(merge) for merge in merges),
        scores=_scores(tokens, merges) if pieces else (),
        pre="default" if pieces else pattern_of(told),
        special=special,
        flags={"add_bos_token": bool(begin), **({"add_space_prefix": _prepends(told)} if pieces else {})},
        chat_template=template.decode() if template is not None else _template(settings.get("chat_template")),
    )


def pattern_of(told: Mapping[str, Any]) -> str:
    """GGUF's name for the pattern of a tokenizer.json. Raises CheckpointError where it has none that is known here."""
    found = told.get("pre_tokenizer") or {}
    parts = found.get("pretokenizers", [found])
    for name, wanted in PARTS.items():
        if [_essence(part) for part in parts] == [_essence(part) for part in wanted]:
            return name
    raise CheckpointError(
        f"{TOKENIZER} cuts text in a way that has no name in GGUF files as far as is known here; known are those of "
        f"{', '.join(PARTS)}"
    )


def _essence(part: Mapping[str, Any]) -> dict[str, Any]:
    """What of a pre-tokenizer changes the tokens."""
    kind = part.get("type")
    if kind == "ByteLevel":
        return {"type": kind, "space": part.get("add_prefix_space", True), "regex": part.get("use_regex", True)}
    return dict(part)


def _type(at: int, token: str | None, added: Mapping[int, Any], model: Mapping[str, Any], pieces: bool) -> int:
    if token is None:
        return UNUSED
    if pieces and token == model.get("unk_token"):
        return UNKNOWN
    if at in added:
        return CONTROL if added[at].get("special") else USER
    return BYTE if pieces and len(token) == 6 and token.startswith("<0x") and token.endswith(">") else NORMAL


def _scores(tokens: list[str | None], merges: list[list[str]]) -> tuple[float, ...]:
    """An earlier merge is a better piece; what no merge makes is never chosen over one."""
    rank: dict[str, int] = {}
    for at, (left, right) in enumerate(merges):
        rank.setdefault(left + right, at)
    return tuple(-float(rank.get(token or "", len(merges))) for token in tokens)


def _template(told: Any) -> str | None:
    """One text, or the default of several with names."""
    if isinstance(told, list):
        named = {entry.get("name"): entry.get("template") for entry in told}
        told = named.get("default")
    return told if isinstance(told, str) else None


def _special(settings: Mapping[str, Any], tokens: list[str | None], generation: Mapping[str, Any]) -> dict[str, int]:
    """Role -> id, by the names in tokenizer_config.json; else by the ids for generation."""
    roles = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token", "unknown": "unk_token"}
    place = {token: at for at, token in enumerate(tokens)}
    found = {}
    for role, key in roles.items():
        value = settings.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        if text in place and text is not None:
            found[role] = place[text]
    for role in ("bos", "eos"):
        ids = generation.get(f"{role}_token_id")
        first = ids[0] if isinstance(ids, list) and ids else ids
        if role not in found and type(first) is int and 0 <= first < len(tokens):
            found[role] = first
    return found


def _template_has(told: Mapping[str, Any], tokens: list[str | None], bos: int | None) -> bool:
    """Whether the post-processor puts the first token before a text."""
    if bos is None:
        return False
    found = told.get("post_processor") or {}
    parts = [part for part in found.get("processors", [found]) if part.get("type") == "TemplateProcessing"]
    return any(
        row.get("SpecialToken", {}).get("id") == tokens[bos] for part in parts for row in part.get("single", [])[:1]
    )


def _prepends(told: Mapping[str, Any]) -> bool:
    found = told.get("normalizer") or {}
    return any(part.get("type") == "Prepend" for part in found.get("normalizers", [found]))


def keys_of(vocabulary: GGUFVocabulary) -> dict[str, Any]:
    """The tokenizer's metadata of a GGUF file."""
    prefix = "tokenizer.ggml."
    told: dict[str, Any] = {f"{prefix}model": vocabulary.model}
    if vocabulary.pre is not None:
        told[f"{prefix}pre"] = vocabulary.pre
    told[f"{prefix}tokens"] = list(vocabulary.tokens)
    for name, items in (("scores", vocabulary.scores), ("token_type", vocabulary.types), ("merges", vocabulary.merges)):
        if items:
            told[f"{prefix}{name}"] = list(items)
    told |= {f"{prefix}{role}_token_id": place for role, place in vocabulary.special.items()}
    told |= {f"{prefix}{name}": value for name, value in vocabulary.flags.items()}
    if vocabulary.chat_template is not None:
        told["tokenizer.chat_template"] = vocabulary.chat_template
    return told


def _text(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=True) + "\n").encode()


def _parsed(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        found = json.loads(files[name])
    except ValueError as error:
        raise CheckpointError(f"{name} is no complete JSON ({error})") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{name} holds no object")
    return found
