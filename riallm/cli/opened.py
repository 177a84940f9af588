"""Models for commands: the options that name one, and the model behind the protocol of a server."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from riallm.core.errors import UsageError
from riallm.core.shipped import DEFAULT, names

if TYPE_CHECKING:
    from riallm.engine.auto import LocalModel
    from riallm.engine.memory_model import MemoryModel
    from riallm.engine.sessions import SessionStore
    from riallm.serve.served import Served

COMPRESSIONS = ("none", "8bit", "4bit", "nf4")


def add_model_options(made: argparse.ArgumentParser) -> None:
    """What opens a model, the same for every command that has one resident."""
    made.add_argument(
        "--model", default=DEFAULT, metavar="NAME|PATH", help=f"a name, a folder or a .gguf file (default: {DEFAULT})"
    )
    made.add_argument("--device", default="cpu", help="cpu, cuda:0; mps is untested (default: cpu)")
    made.add_argument(
        "--compression", choices=COMPRESSIONS, default="none", help="of matrices that are not packed (default: none)"
    )
    made.add_argument(
        "--dtype", help="of activations: bfloat16 or float32 (default: bfloat16; with a memory of slots float32)"
    )
    made.add_argument("--max-seq-len", type=int, metavar="N", help="longest prompt and answer (default: the model's)")
    made.add_argument(
        "--kv-memory", type=float, default=512, metavar="MIB", help="of keys, values and memories (default: 512)"
    )
    made.add_argument("--int8-kv", action="store_true", help="keys and values in 8 bits")
    made.add_argument("--draft", metavar="NAME|PATH", help="a small model of the same tokens that drafts")
    made.add_argument(
        "--lookahead",
        type=int,
        metavar="N",
        help="tokens drafted, from the text without --draft (default: 4)",
    )
    made.add_argument("--random-weights", action="store_true", help="for a name without weights, to measure")


def open_model(options: argparse.Namespace) -> LocalModel | MemoryModel:
    """The model of the options, whose conversations may be a memory of slots. Raises UsageError without the extra, for
    a name that is not known, and for what cannot be, CheckpointError for a damaged model."""
    try:
        from riallm.engine.auto import AutoModel, ModelOptions
        from riallm.engine.local import EngineOptions
        from riallm.engine.memory_model import MemoryModel, keeps_memory
        from riallm.models.rxt import RxTConfig
        from riallm.models.zoo import ZOO
    except ImportError as error:
        raise UsageError(
            f"a model needs more than the core: {error}. Run: pip install 'riallm[models,serve]'"
        ) from None
    lookahead: int = EngineOptions().lookahead if options.lookahead is None else options.lookahead
    if not 0 < options.kv_memory < math.inf:
        raise UsageError(f"--kv-memory is {options.kv_memory}; it is a number of MiB above 0")
    if lookahead < 0:
        raise UsageError(f"--lookahead is {lookahead}; it is at least 0")
    if options.model in ZOO and isinstance(ZOO[options.model].config, RxTConfig) and not Path(options.model).exists():
        raise UsageError(
            f"nobody has weights of {options.model}, and none are made up for a model with a memory: `riallm bench "
            f"turns` measures its shape. Shipped models: {', '.join(names()) or 'none'}"
        )
    if (
        options.random_weights
        and options.model not in ZOO
        and (options.model in names() or Path(options.model).exists())
    ):
        raise UsageError(f"--random-weights: {options.model} has weights of its own; leave it out")
    remembers = not options.random_weights and keeps_memory(options.model)
    told = ModelOptions(
        compression=options.compression,
        device=options.device,
        max_seq_len=options.max_seq_len,
        dtype=options.dtype or ("float32" if remembers else "bfloat16"),
        random_weights=options.random_weights,
    )
    engine = EngineOptions(kv_bytes=int(options.kv_memory * 2**20), int8_kv=options.int8_kv, lookahead=lookahead)
    if not remembers:
        return AutoModel.from_pretrained(options.model, options=told, engine_options=engine, draft=options.draft)
    drafts = (("--draft", options.draft), ("--lookahead", options.lookahead))
    for name, given in (*drafts, ("--int8-kv", options.int8_kv)):
        if given:
            raise UsageError(f"{name}: {options.model} keeps its conversations in a memory; leave it out")
    return MemoryModel(options.model, told, engine_options=engine)


def served(model: LocalModel | MemoryModel, store: SessionStore | None = None) -> Served:
    """The model with its way of writing prompts; store: where one with a memory keeps its conversations, None: in this
    process's memory. Raises UsageError without the extra `serve`."""
    try:
        from riallm.engine.memories import Memories
        from riallm.engine.memory_model import MemoryModel
        from riallm.engine.sqlite_sessions import SQLiteSessions
        from riallm.serve.interactions import InteractionPrompts
        from riallm.serve.prompts import PlainPrompts
        from riallm.serve.related import RelatedPrompts
        from riallm.serve.served import Served
        from riallm.tokenizer.foreign import HybridText
    except ImportError as error:
        raise UsageError(f"this needs more than the core: {error}. Run: pip install 'riallm[models,serve]'") from None
    if isinstance(model, MemoryModel):
        return Served(
            engine=model.engine,
            tokenizer=model.tokenizer,
            prompts=InteractionPrompts(model.tokenizer.tokenizer),
            created=int(time.time()),
            embeds=False,
            memories=Memories(model.engine, SQLiteSessions(None) if store is None else store),
        )
    text = model.tokenizer
    return Served(
        engine=model.engine,
        tokenizer=text,
        prompts=RelatedPrompts(text) if isinstance(text, HybridText) else PlainPrompts(text),
        created=int(time.time()),
        note=None if text.chat_template else NO_CHAT,
    )


NO_CHAT = "This is no chat model: it goes on with text and fills holes in code."
