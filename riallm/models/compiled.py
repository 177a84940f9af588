"""Decoders as programs: the blocks of a model whose matrices are packed, as operations for one compiled call.

It computes what the modules compute, in float32 between the matrices; `Decoder.forward` takes it for sequences in
pages, where nothing else is asked of a pass.

Letters: D hidden, H heads, G key-value heads, K head size, I intermediate, R rank of a path.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from riallm.models.decoder import Block, Decoder
from riallm.nn import page_attention
from riallm.nn.attention_layer import Attention
from riallm.nn.feedforward import DualPathFeedForward, FeedForward
from riallm.nn.linear import PackedLinear
from riallm.nn.norm import RMSNorm
from riallm.nn.program import LARGEST_HEAD, Op, Program, available
from riallm.quant.prepared import joined

X, FIRST, NORMED, QKV, Q, SEEN, OUT, INNER, ACTIVE, PATHS, MIXED = range(11)
"""Buffers: the stream, the embeddings, and what lies between the operations of a block."""


class _NoProgram(Exception):
    """The model has a part that no operation computes."""


def compile_blocks(model: Decoder) -> None:
    """From now on the model's passes over pages are one compiled call, where it and this machine allow that."""
    model.program = program_of(model)


def program_of(model: Decoder) -> Program | None:
    """The blocks and the final norm; None where a matrix is not packed, or nothing is compiled here."""
    on_cpu = all(p.device.type == "cpu" for p in model.parameters())
    if not (available() and page_attention.available() and on_cpu) or model.sizes.head_dim > LARGEST_HEAD:
        return None
    try:
        return _program(model)
    except _NoProgram:
        return None


def _program(model: Decoder) -> Program:
    sizes = model.sizes
    hidden, size = sizes.hidden_size, sizes.head_dim
    heads, shared = sizes.num_attention_heads * size, sizes.num_key_value_heads * size
    ops: list[Op] = []
    alphas: list[Tensor | None] = []
    paths = inner = active = 0
    keeps_first = False
    for layer, block in enumerate(model.layers):
        assert isinstance(block, Block)
        skips = getattr(block, "skips", None)
        if skips is not None:
            keeps_first = True
            ops.append(Op(kind="mix", name="skips", source=FIRST, target=X, columns=hidden, one=_floats(skips)))
        ops += [_norm(block.input_layernorm, X), *_attention(block.self_attn, layer), _add(OUT, hidden)]
        ops += [_norm(block.post_attention_layernorm, X), *_network(block.mlp), _add(OUT, hidden)]
        if isinstance(block.mlp, DualPathFeedForward):
            ops += [*_paths(block.mlp), _add(OUT, hidden)]
            paths = max(paths, block.mlp.plan_in.out_features)
        alphas.append(block.self_attn.alpha)
        active = max(active, _packed(block.mlp.down_proj).prepared.shape[1])
        inner = max(inner, active * (1 if block.mlp.gate_proj is None else 2))
    ops.append(_norm(model.norm, X))
    widths = [hidden, hidden if keeps_first else 0, hidden, heads + 2 * shared, heads, heads, hidden, inner, active]
    widths += [1 + 2 * paths, 2 * paths] if paths else []
    return Program(ops, widths=widths, num_heads=sizes.num_attention_heads, alphas=alphas, keeps_first=keeps_first)


def _attention(module: Attention, layer: int) -> list[Op]:
    columns = module.num_heads * module.head_dim
    q_norm, k_norm = module.q_norm, module.k_norm
    heads = Op(
        kind="heads",
        name="rotate and keep",
        source=QKV,
        target=Q,
        columns=columns,
        layer=layer,
        one=_ones(q_norm),
        other=_ones(k_norm),
        eps=-1.0 if q_norm is None else q_norm.eps,
    )
    attend = Op(kind="attend", name="attend", source=Q, target=SEEN, columns=columns, layer=layer)
    maps = (module.q_proj, module.k_proj, module.v_proj)
    return [*_linears("q, k, v", maps, NORMED, QKV), heads, attend, *_linears("o", (module.o_proj,), SEEN, OUT)]


def _network(module: FeedForward) -> list[Op]:
    maps = (module.up_proj,) if module.gate_proj is None else (module.gate_proj, module.up_proj)
    columns = _packed(module.down_proj).prepared.shape[1]
    active = Op(
        kind="squared_relu" if module.gate_proj is None else "swiglu",
        name="activation",
        source=INNER,
        target=ACTIVE,
        columns=columns,
    )
    return [*_linears("gate, up", maps, NORMED, INNER), active, *_linears("down", (module.down_proj,), ACTIVE, OUT)]


def _paths(module: DualPathFeedForward) -> list[Op]:
    """The correction by the two paths: their small matrices as one into the paths, and one out of them."""
    maps = (module.path_gate, module.plan_in, module.execute_in)
    rank, hidden = module.plan_in.weight.shape
    into = torch.cat([_floats(each.weight) for each in maps])
    bias = torch.cat([_floats(module.path_gate.bias), torch.zeros(2 * rank)])
    out = torch.cat([_floats(module.plan_out.weight), _floats(module.execute_out.weight)], dim=1).contiguous()
    return [
        Op(kind="small", name="paths", source=NORMED, target=PATHS, columns=hidden, weight=into, one=bias),
        Op(kind="paths", name="paths", source=PATHS, target=MIXED, columns=2 * rank),
        Op(kind="small", name="paths", source=MIXED, target=OUT, columns=2 * rank, weight=out),
    ]


def _linears(name: str, maps: Sequence[nn.Module], source: int, target: int) -> list[Op]:
    """Maps of one input whose outputs stand side by side: as one matrix where they can be."""
    modules = [_packed(each) for each in maps]
    together = joined([each.prepared for each in modules]) if len(modules) > 1 else None
    if together is not None:
        whole, parts = together
        for module, part in zip(modules, parts, strict=True):
            module.prepared = part  # the same memory
        biases = [each.bias for each in modules]
        bias = None
        if any(each is not None for each in biases):
            rows = [each.prepared.shape[0] for each in modules]
            bias = torch.cat([torch.zeros(n) if b is None else _floats(b) for n, b in zip(rows, biases, strict=True)])
        return [
            Op(kind="linear", name=name, source=source, target=target, columns=whole.shape[1], weight=whole, one=bias)
        ]
    ops: list[Op] = []
    first = 0
    for module in modules:
        outputs, columns = module.prepared.shape
        bias = None if module.bias is None else _floats(module.bias)
        ops.append(
            Op(
                kind="linear",
                name=name,
                source=source,
                target=target,
                columns=columns,
                first=first,
                weight=module.prepared,
                one=bias,
            )
        )
        first += outputs
    return ops


def _norm(module: RMSNorm, source: int) -> Op:
    return Op(
        kind="norm",
        name="norm",
        source=source,
        target=NORMED,
        columns=module.size,
        one=_ones(module),
        eps=module.eps,
    )


def _add(source: int, columns: int) -> Op:
    return Op(kind="add", name="add", source=source, target=X, columns=columns)


def _ones(module: RMSNorm | None) -> Tensor | None:
    return None if module is None or module.weight is None else _floats(module.weight)


def _floats(tensor: Tensor) -> Tensor:
    return tensor.detach().float().contiguous()


def _packed(module: nn.Module) -> PackedLinear:
    if not isinstance(module, PackedLinear):
        raise _NoProgram
    return module
