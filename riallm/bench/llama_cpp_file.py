"""GGUF files of random weights for a shape by its name, in llama.cpp's types: made once, kept in the cache folder.

The weights are drawn one tensor at a time into a file of bfloat16, which llama.cpp quantises and which goes away then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from riallm.core.errors import UsageError
from riallm.core.files import cache_home, canonical_json, sha256

if TYPE_CHECKING:
    from torch import Tensor

    from riallm.models.llama import LlamaConfig

SEED = 0
Quantise = Callable[[Path, Path, str], None]
"""Source, target, type."""


def files_of(
    name: str, kinds: Sequence[str], quantise: Quantise, *, folder: Path | None = None, say: Callable[[str], object]
) -> dict[str, Path]:
    """Type -> file of a name in the zoo; what is not there yet is made. Raises UsageError for a model that llama.cpp
    does not have, CheckpointError where the disk has too little room."""
    from riallm.core.config import to_json
    from riallm.models.llama import LlamaConfig
    from riallm.models.zoo import ZOO, entry

    config = entry(name).config
    if not isinstance(config, LlamaConfig):
        known = ", ".join(each for each, one in ZOO.items() if isinstance(one.config, LlamaConfig))
        raise UsageError(f"llama.cpp does not know the architecture of {name}; compare with one of {known}")
    folder = folder or cache_home() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    # The shape is part of the name: a file of an earlier shape of that name is not taken for this one.
    stem = f"{name}-{sha256(canonical_json(to_json(config)).encode())[:8]}-{SEED}"
    found = {kind: folder / f"{stem}-{kind}.gguf" for kind in kinds}
    missing = {kind: path for kind, path in found.items() if not path.exists()}
    if not missing:
        return found
    plain = folder / f"{stem}-bf16.gguf"
    say(f"drawing {plain} for llama.cpp; this happens once")
    _remove(plain)
    try:
        write(config, plain, name=name)
        for kind, path in missing.items():
            say(f"quantising {path}")
            partial = path.with_suffix(".partial")
            quantise(plain, partial, kind)
            partial.rename(path)
    finally:
        _remove(plain)
    return found


def write(config: LlamaConfig, path: Path, *, name: str, seed: int = SEED) -> None:
    """A file of bfloat16 with the same bytes for the same seed. It has no vocabulary: tokens are numbers."""
    from riallm.checkpoint import gguf_write
    from riallm.checkpoint.tensors import Info, Tensors
    from riallm.models import foreign, foreign_gguf

    shapes = foreign.shapes(config)
    number = {full: at for at, full in enumerate(shapes)}
    infos = {
        full: Info(kept="bfloat16" if len(shape) == 2 else "float32", shape=shape) for full, shape in shapes.items()
    }
    tensors = Tensors(infos, lambda full: drawn(full, shapes[full], seed * len(shapes) + number[full]))
    metadata = {**foreign_gguf.metadata_of(config, name=name), "tokenizer.ggml.model": "none"}
    # Where an architecture has rows in another order, these are as random in that order as in ours.
    ours_of = {theirs: mine for mine, theirs in foreign.gguf_names(shapes).items()}
    gguf_write.write(path, metadata, tensors.renamed(ours_of))


def drawn(full: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Matrices that keep the size of what they multiply, gains of one, biases of nought."""
    import torch

    if len(shape) < 2:
        return torch.zeros(shape) if full.endswith("bias") else torch.ones(shape)
    draw = torch.Generator().manual_seed(seed)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=shape[-1] ** -0.5, generator=draw)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
