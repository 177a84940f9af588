"""Every kind of packed matrix: its memory, its errors, and what it stands for, against GGUF's own Python package."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from riallm.core.errors import UsageError
from riallm.quant.nf4 import LEVELS
from riallm.quant.packed import Kind, Packed, dequantise, packable, quantise

WEIGHT = torch.randn(24, 512, generator=torch.Generator().manual_seed(0))
TYPES = {"q4_k": gguf.GGMLQuantizationType.Q4_K, "q6_k": gguf.GGMLQuantizationType.Q6_K}


@pytest.mark.parametrize(("kind", "size"), [("int4", 0.5 + 2 / 32), ("int8", 1 + 2 / 32), ("nf4", 0.5 + 2 / 64)])
def test_memory_and_shape_are_what_the_kind_says(kind: Kind, size: float) -> None:
    packed = quantise(WEIGHT, kind)
    assert packed.num_bytes == size * WEIGHT.numel() and packed.shape == (24, 512)


def super_blocks(kind: str) -> np.ndarray:
    """Random bytes are valid super-blocks, but for scales that are no numbers or huge."""
    _, num_bytes = gguf.GGML_QUANT_SIZES[TYPES[kind]]
    raw = np.random.default_rng(0).integers(0, 256, size=(6, 3 * num_bytes), dtype=np.uint8)
    places = (0, 2) if kind == "q4_k" else (num_bytes - 2,)
    for block in range(3):
        for at in places:
            scale = np.random.default_rng(block + at).normal(size=6).astype(np.float16)
            raw[:, block * num_bytes + at : block * num_bytes + at + 2] = scale.view(np.uint8).reshape(6, 2)
    return raw


@pytest.mark.parametrize("kind", ["q4_k", "q6_k"])
def test_super_blocks_are_read_bit_for_bit(kind: Kind) -> None:
    raw = super_blocks(kind)
    packed = Packed(kind=kind, codes=torch.from_numpy(raw), scales=None)
    found = dequantise(packed)
    assert packed.shape == (6, 768) == tuple(found.shape) and packed.num_bytes == raw.nbytes
    assert np.array_equal(found.numpy(), gguf.quants.dequantize(raw, TYPES[kind]))


def test_nf4_takes_the_nearest_level() -> None:
    found = dequantise(quantise(WEIGHT, "nf4")).reshape(24, -1, 64)
    blocks = WEIGHT.reshape(24, -1, 64)
    scales = blocks.abs().amax(dim=-1, keepdim=True).half().float()
    nearest = (blocks[..., None] / scales[..., None] - torch.tensor(LEVELS)).abs().argmin(dim=-1)
    torch.testing.assert_close(found, torch.tensor(LEVELS)[nearest] * scales, rtol=0, atol=0)


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(UsageError, match=r"nf4 needs rows of whole blocks of 64, got a tensor of \(2, 96\)"):
        quantise(torch.zeros(2, 96), "nf4")
    with pytest.raises(UsageError, match="q4_k is read from GGUF files"):
        quantise(WEIGHT, "q4_k")
    assert packable(torch.zeros(64, 64), "nf4") and not packable(torch.zeros(64, 96), "nf4")
    assert not packable(torch.zeros(4096), "int8") and not packable(torch.zeros(2, 64), "int8")
