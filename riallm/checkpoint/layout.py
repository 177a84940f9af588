"""Which tensor lies in which file of a split model, and in which order: that in which a pass uses them.

embed.safetensors  layer_0.safetensors ...  final_norm.safetensors  lm_head.safetensors  rest.safetensors
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from riallm.checkpoint.building import FilePlan, Item
from riallm.checkpoint.header import Entry, header_of
from riallm.checkpoint.tensors import Info, Tensors

LAYER = re.compile(r"layers\.(\d+)\.")
ENDS = {"embed_tokens": "embed", "norm": "final_norm", "lm_head": "lm_head"}
REST = "rest"

WITHIN = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.q_norm",
    "self_attn.k_norm",
    "self_attn.o_proj",
    "self_attn",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""Parts of a layer in the order of their use; the first that a name begins with counts, others come last."""
ALIGNED = 64
"""Bytes. Whoever is no multiple of this comes at the end of its file, the widest type first, so that all that lies
before begins at a multiple, and nothing at an odd place for its type."""


def file_of(name: str) -> str:
    """The file of a tensor."""
    if found := LAYER.match(name):
        return f"layer_{int(found[1])}.safetensors"
    return f"{ENDS.get(name.split('.')[0], REST)}.safetensors"


def order(name: str) -> tuple[int, int, int]:
    """Where a tensor stands among all: by its file, then by its part of the layer."""
    found = LAYER.match(name)
    inner = name[found.end() :] if found else ""
    part = next((at for at, start in enumerate(WITHIN) if inner.startswith(start)), len(WITHIN))
    if found:
        return 1, int(found[1]), part
    return {"embed": 0, "final_norm": 2, "lm_head": 3, REST: 4}[ENDS.get(name.split(".")[0], REST)], 0, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a weight lies: its file, and there its parts by their names in the header."""

    file: str
    info: Info
    parts: dict[str, Entry]


def split(tensors: Tensors) -> tuple[dict[str, FilePlan], dict[str, Place]]:
    """File -> plan, in order; and tensor -> place."""
    names: dict[str, list[str]] = {}
    for name in sorted(tensors, key=order):
        names.setdefault(file_of(name), []).append(name)
    plans: dict[str, FilePlan] = {}
    places: dict[str, Place] = {}
    for file, inside in names.items():
        plans[file], found = planned(file, {name: tensors.info(name) for name in inside})
        places |= found
    return plans, places


def planned(
    file: str, infos: dict[str, Info], metadata: dict[str, str] | None = None
) -> tuple[FilePlan, dict[str, Place]]:
    """A safetensors file with these tensors in their order, but those of odd length last."""
    parts = [
        (f"{name}{ending}", dtype, shape, name)
        for name, info in infos.items()
        for ending, (dtype, shape) in info.parts.items()
    ]
    odd = {
        name for name, info in infos.items() if any(_odd(dtype.itemsize, shape) for dtype, shape in info.parts.values())
    }
    parts = [part for part in parts if part[3] not in odd] + sorted(
        (part for part in parts if part[3] in odd), key=lambda part: -part[1].itemsize
    )
    head, entries = header_of({part: (dtype, shape) for part, dtype, shape, _ in parts}, metadata)
    places = {
        name: Place(file=file, info=info, parts={ending: entries[f"{name}{ending}"] for ending in info.parts})
        for name, info in infos.items()
    }
    items = tuple(Item(name=part, num_bytes=entries[part].num_bytes) for part, *_ in parts)
    return FilePlan(head=head, items=items), places


def _odd(width: int, shape: tuple[int, ...]) -> bool:
    size = width
    for number in shape:
        size *= number
    return size % ALIGNED != 0
