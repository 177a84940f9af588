"""From any model that can be opened to a folder of ours, a Hugging Face folder or a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from riallm.checkpoint import folder as folders
from riallm.checkpoint import gguf_write, huggingface
from riallm.checkpoint.building import Hear
from riallm.checkpoint.carried import CARRIED
from riallm.checkpoint.folder import Stored
from riallm.checkpoint.tensors import PLAIN, Info, KindOf, Tensors, Weight, in_memory, packed_as, rows_of
from riallm.core.errors import CheckpointError, UsageError
from riallm.models import foreign, foreign_config, foreign_gguf, foreign_tokenizer
from riallm.models.foreign_tokenizer import GENERATION, TOKENIZER, VOCABULARY
from riallm.quant.packed import Kind

Form = Literal["split", "hf", "gguf"]
FORMS: tuple[Form, ...] = get_args(Form)
COMPRESSIONS: dict[str, Kind | None] = {"none": None, "8bit": "int8", "4bit": "int4", "nf4": "nf4", "q8_0": "int8"}
EMBEDDINGS = ("embed_tokens.", "lm_head.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What was made. num_bytes: of the tensors. kept: way of keeping -> number of tensors."""

    path: Path
    form: Form
    num_tensors: int
    num_bytes: int
    kept: Mapping[str, int]


def convert(
    source: Path,
    target: Path,
    *,
    to: Form = "split",
    compression: str = "none",
    dtype: str | None = None,
    hear: Hear | None = None,
) -> Converted:
    """Write the model at `source` to `target`, which is whole or absent; an interrupted try is gone on with.

    compression: of matrices, a key of COMPRESSIONS; "none" leaves what is packed as it is, where the form can. dtype:
    of matrices that are not packed (None: as they are). Raises CheckpointError and UsageError as `foreign.open_model`
    does, and for what the form cannot hold.
    """
    if to not in FORMS or compression not in COMPRESSIONS or (dtype is not None and dtype not in PLAIN):
        raise UsageError(
            f"a model is written as one of {', '.join(FORMS)}, compressed as one of {', '.join(COMPRESSIONS)}, in "
            f"one of {', '.join(PLAIN)}; got {to}, {compression}, {dtype}"
        )
    if to == "hf" and COMPRESSIONS[compression] is not None:
        raise UsageError(f"Hugging Face folders hold plain tensors; --compression {compression} needs another form")
    stored = foreign.open_model(source)
    tensors = stored.tensors.kept_as(kind_of(COMPRESSIONS[compression], dtype=dtype, to=to))
    resume = stored.identity
    if to == "split":
        folders.write(target, stored.config, tensors, files=stored.files, resume=resume, hear=hear)
    elif to == "hf":
        tensors = write_hugging_face(target, stored, tensors, resume=resume, hear=hear)
    else:
        tensors = write_gguf(target, stored, tensors, resume=resume, hear=hear)
    kept: dict[str, int] = {}
    for name in tensors:
        kept[tensors.info(name).kept] = kept.get(tensors.info(name).kept, 0) + 1
    num_bytes = sum(tensors.info(name).num_bytes for name in tensors)
    return Converted(path=target, form=to, num_tensors=len(tensors), num_bytes=num_bytes, kept=kept)


def kind_of(kind: Kind | None, *, dtype: str | None, to: Form) -> KindOf:
    """How each tensor is kept. Embeddings and the head have 8 bits where other matrices have 4: they are what is lost
    first (llama.cpp's mixtures spare them as well). GGUF's vectors are float32, because llama.cpp adds no others."""
    matrices = packed_as(kind)
    spared = packed_as(None if kind is None else "int8")

    def way(name: str, info: Info) -> str:
        if len(info.shape) != 2:
            return "float32" if to == "gguf" else info.kept
        if kind is not None:
            found = (spared if name.startswith(EMBEDDINGS) else matrices)(name, info)
            return dtype if dtype is not None and found in PLAIN else found
        if info.kept in PLAIN:
            return dtype or info.kept
        return info.kept if to != "hf" else dtype or "bfloat16"

    return way


def write_hugging_face(
    target: Path,
    stored: Stored,
    tensors: Tensors,
    *,
    resume: str | None = None,
    hear: Hear | None = None,
    shard_bytes: int = huggingface.SHARD_BYTES,
) -> Tensors:
    """Write a folder that transformers reads; what was written. tensors: plain, under our names. Raises CheckpointError
    for a family or tokenizer that it does not have."""
    config = foreign.config_of(stored)
    if VOCABULARY in stored.files and TOKENIZER not in stored.files:
        raise CheckpointError(
            "the model's tokenizer cuts text in a way that tokenizer.json cannot be written for; convert to split "
            "or gguf"
        )
    names = {name if name.startswith("lm_head.") else f"{foreign.PREFIX}{name}": name for name in tensors}
    renamed = tensors.renamed(names)
    dtype = tensors.info("embed_tokens.weight").kept
    told = {**foreign_config.to_hugging_face(config, dtype=dtype), **ends_of(stored.files)}
    files = {name: data for name, data in stored.files.items() if name in CARRIED}
    huggingface.write(target, told, renamed, files=files, resume=resume, hear=hear, shard_bytes=shard_bytes)
    return renamed


def write_gguf(
    target: Path, stored: Stored, tensors: Tensors, *, resume: str | None = None, hear: Hear | None = None
) -> Tensors:
    """Write a file that llama.cpp reads; what was written. tensors: under our names. Raises CheckpointError for a
    family, tokenizer or way of keeping that the format does not have."""
    if target.suffix != ".gguf":
        raise UsageError(f"{target} must end with .gguf")
    config = foreign.config_of(stored)
    vocabulary = foreign_tokenizer.vocabulary_of(stored.files, size=config.vocab_size)
    metadata = foreign_gguf.metadata_of(config, name=target.stem)
    if vocabulary is not None:
        metadata |= foreign_tokenizer.keys_of(vocabulary)
    ours_of = {theirs: mine for mine, theirs in foreign.gguf_names(dict.fromkeys(tensors)).items()}
    permuted = foreign_config.family_for(config).permuted

    def change(name: str, weight: Weight) -> Weight:
        index = foreign.permutation(ours_of[name], config) if permuted else None
        return weight if index is None else rows_of(weight, index)

    renamed = tensors.renamed(ours_of, change).joined(in_memory(foreign_gguf.extra_tensors(config)))
    gguf_write.write(target, metadata, renamed, resume=resume, hear=hear)
    return renamed


def ends_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The ids of the first and the last token, for config.json."""
    if GENERATION in files:
        told = json.loads(files[GENERATION])
        return {key: told[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in told}
    if VOCABULARY in files:
        special = json.loads(files[VOCABULARY])["special"]
        return {f"{role}_token_id": special[role] for role in ("bos", "eos") if role in special}
    return {}
