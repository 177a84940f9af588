"""Tiny models of two families, engines over them, and what one pass over the whole text says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from riallm.engine.local import EngineOptions, LocalEngine
from riallm.engine.request import Delta, Recorder, Sampling
from riallm.models import resident
from riallm.models.decoder import Decoder
from riallm.models.llama import Llama, LlamaConfig
from riallm.models.ria import RIA
from riallm.models.zoo import nano
from riallm.nn.adapter import Adapter, LowRank
from riallm.nn.meta import Relation, TokenMeta

VOCAB, CONTEXT = 61, 512
GREEDY = Sampling(temperature=0.0)


def ria() -> RIA:
    """Ranges are a few tokens, so that they matter; relations count."""
    sizes = nano(hidden=128, layers=2, inner=128, vocab=VOCAB, context=CONTEXT)
    made = RIA(replace(sizes, zero_output=False, local_window=24, file_window=70))
    made.initialise(seed=1)
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        made.embed_tokens.weight.mul_(6.0)
        for block in made.layers:
            block.self_attn.alpha.normal_(std=3.0, generator=draws)  # type: ignore[union-attr, operator]
    return made.eval()


def llama() -> Llama:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=CONTEXT,
        qk_norm=True,
    )
    return drawn(config)


def drawn(config: LlamaConfig, seed: int = 0) -> Llama:
    """Weights large enough for answers to vary."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Llama(config)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.normal_(std=0.3)
    return made.eval()


def packed() -> Decoder:
    """Wide enough for every map to be kept in 8 bits, but for the head."""
    config = replace(llama().config, hidden_size=128, intermediate_size=128, head_dim=32)
    return resident.random_of(config, "tiny", kind="int8", dtype="float32").model


def adapter_for(model: Decoder, version: int, scale: float = 1.0) -> Adapter:
    """Changes that answers show."""
    draw = torch.Generator().manual_seed(version)
    tensors = {
        hook: LowRank(
            down=torch.randn(2, inputs, generator=draw) * inputs**-0.5,
            up=torch.randn(outputs, 2, generator=draw) * scale,
        )
        for hook, (outputs, inputs) in model.hooks().items()
        if not hook.endswith("k_proj")
    }
    return Adapter(name="test", version=version, tensors=tensors)


def engine(
    model: Decoder, *, small: Decoder | None = None, recorder: Recorder | None = None, **options: Any
) -> LocalEngine:
    """Bytes of a token: its number, so that texts are easily told."""
    given = {"kv_bytes": 16 << 20, "lookahead": 0, **options}
    return LocalEngine(
        model,
        name="tiny",
        identity="tiny",
        decode=lambda ids: bytes(40 + index for index in ids),
        context=CONTEXT,
        options=EngineOptions(**given),
        small=small,
        recorder=recorder,
    )


def page_of(model: Decoder) -> int:
    """Bytes of a page."""
    made = engine(model)
    made.close()
    return made.store.num_bytes // made.store.num_pages


def answer(ticket: Any) -> list[Delta]:
    pieces: list[Delta] = []
    while not pieces or pieces[-1].finish is None:
        piece = ticket.next(60.0)
        assert piece is not None, "nothing came within a minute"
        pieces.append(piece)
    return pieces


def ids_of(pieces: Sequence[Delta]) -> list[int]:
    return [token.id for piece in pieces for token in piece.tokens]


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    """Repeats itself, as code does, so that something can be looked up."""
    draw = torch.Generator().manual_seed(seed)
    words = torch.randint(0, VOCAB, (6, 7), generator=draw)
    chosen = torch.randint(0, 6, (length // 7 + 1,), generator=draw)
    return tuple(words[chosen].flatten()[:length].tolist())


def two_files(length: int) -> TokenMeta:
    """The second third imports the first, the third nothing."""
    relations = torch.tensor([[[1, 0, 0], [2, 1, 0], [0, 0, 1]]])
    assert relations[0, 1, 0] == int(Relation.IMPORT)
    return replace(TokenMeta.plain(1, length), files=(torch.arange(length) * 3 // length)[None], relations=relations)


def grown(meta: TokenMeta | None, num_prompt: int, num_tokens: int) -> TokenMeta:
    """The record of a prompt and an answer behind it."""
    given = meta or TokenMeta.plain(1, num_prompt)
    files = torch.cat((given.files, given.files[:, -1:].expand(1, num_tokens - num_prompt)), dim=1)
    return replace(TokenMeta.plain(1, num_tokens), files=files, relations=given.relations)


def greedy(
    model: Decoder, ids: Sequence[int], num: int, meta: TokenMeta | None = None, adapter: Adapter | None = None
) -> list[int]:
    """One pass over the whole text for every token."""
    found = list(ids)
    for _ in range(num):
        whole = grown(meta, len(ids), len(found))
        with torch.inference_mode():
            out = model(torch.tensor([found]), whole, adapter=adapter)
            found.append(int(model.logits(out.hidden[0, -1]).argmax()))
    return found[len(ids) :]
