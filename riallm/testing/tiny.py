"""A tiny model of random weights in a folder, for whatever needs a model and not its knowledge."""

from __future__ import annotations

import textwrap
from pathlib import Path

VOCAB = 600


def write_tiny(place: Path, *, seed: int = 3, context: int = 256) -> Path:
    """Write it to `place` with a tokenizer of its own; the same seed gives the same bytes. Needs the extra `models`."""
    from riallm.models.load import TOKENIZER, save_ria
    from riallm.models.ria import RIA
    from riallm.models.zoo import nano
    from riallm.tokenizer import saved
    from riallm.tokenizer.hybrid import HybridTokenizer
    from riallm.tokenizer.training import train

    model = RIA(nano(hidden=128, layers=2, inner=128, vocab=VOCAB, context=context))
    model.initialise(seed)
    text = Path(textwrap.__file__).read_text(encoding="utf-8")
    beside = place.with_name(f"{place.name}-{TOKENIZER}")
    beside.parent.mkdir(parents=True, exist_ok=True)
    saved.save(HybridTokenizer(train([text], size=VOCAB)), beside)
    save_ria(model, place, bits=8, files={TOKENIZER: beside.read_bytes()})
    beside.unlink()
    return place
