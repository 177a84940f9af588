"""A tiny model with a memory and random weights in a folder, for whatever needs a conversation and not its sense."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riallm.models.rxt import RxTConfig

VOCAB = 600


def tiny_rxt(*, vocab_size: int, max_interaction: int) -> RxTConfig:
    """Two layers of 32 with six slots; the document's memory attention. Needs the extra `models`."""
    from riallm.models.rxt import RxTConfig
    from riallm.nn.memory_attention import MemoryAttentionConfig

    return RxTConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        max_interaction=max_interaction,
        num_slots=6,
        decoder_heads=2,
        decoder_kv_heads=1,
        num_experts=4,
        experts_per_token=2,
        expert_size=24,
        encoder_heads=2,
        encoder_kv_heads=2,
        encoder_size=48,
        memory=MemoryAttentionConfig(num_heads=2, num_kv_heads=2),
    )


def write_tiny_rxt(place: Path, *, seed: int = 3, max_interaction: int = 64) -> Path:
    """Write it to `place` with a tokenizer of its own that has the markers of interactions; the same seed gives the
    same bytes. max_interaction: tokens of query and answer together. Needs the extra `models`."""
    import torch

    from riallm.models.load import TOKENIZER, save_rxt
    from riallm.models.rxt import RxT
    from riallm.tokenizer import saved
    from riallm.tokenizer.hybrid import HybridTokenizer
    from riallm.tokenizer.interaction import with_markers
    from riallm.tokenizer.training import train

    model = RxT(tiny_rxt(vocab_size=VOCAB, max_interaction=max_interaction))
    model.initialise(seed)
    with torch.no_grad():  # as it begins, it would say the last token again and again
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(seed + 1)).mul_(0.2)
    text = Path(textwrap.__file__).read_text(encoding="utf-8")
    beside = place.with_name(f"{place.name}-{TOKENIZER}")
    beside.parent.mkdir(parents=True, exist_ok=True)
    saved.save(HybridTokenizer(with_markers(train([text], size=VOCAB))), beside)
    save_rxt(model, place, bits=8, files={TOKENIZER: beside.read_bytes()})
    beside.unlink()
    return place
