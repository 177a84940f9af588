"""A tiny model with a memory and random weights in a folder, for whatever needs a conversation and not its sense."""

from __future__ import annotations

import textwrap
from pathlib import Path

VOCAB = 600


def write_tiny_rxt(place: Path, *, seed: int = 3, max_interaction: int = 64) -> Path:
    """Write it to `place` with a tokenizer of its own that has the markers of interactions; the same seed gives the
    same bytes. max_interaction: tokens of query and answer together. Needs the extra `models`."""
    import torch

    from riallm.models.load import TOKENIZER, save_rxt
    from riallm.models.rxt import RxT, RxTConfig
    from riallm.nn.memory_attention import MemoryAttentionConfig
    from riallm.tokenizer import saved
    from riallm.tokenizer.hybrid import HybridTokenizer
    from riallm.tokenizer.interaction import with_markers
    from riallm.tokenizer.training import train

    config = RxTConfig(
        vocab_size=VOCAB,
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
        memory=MemoryAttentionConfig(num_heads=2, num_kv_heads=2, layer_groups=1),
    )
    model = RxT(config)
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
