"""Packed matrices times activations: every kind on every path gives the reference's bits, whatever the batch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.quant.compiled import PATHS, VARIABLE, kernels
from riallm.quant.matmul import linear, linear_reference
from riallm.quant.packed import KINDS, Kind, Packed, dequantise, quantise
from riallm.quant.prepared import prepare, rows, whole

SUPER_BLOCKS = {"q4_k": (144, (0, 2)), "q6_k": (210, (208,))}  # bytes, and where their float16 scales are
ROUNDED: tuple[Kind, ...] = ("int4", "int8", "q4_k", "q6_k")
OUTPUTS, COLUMNS = 41, 768  # two panels, the second nearly empty; three chunks of columns


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def packed(kind: Kind, outputs: int = OUTPUTS, columns: int = COLUMNS) -> Packed:
    """A matrix of random numbers; for a K-quant random bytes, but for scales that would be no numbers."""
    if kind not in SUPER_BLOCKS:
        return quantise(random(outputs, columns), kind)
    num_bytes, places = SUPER_BLOCKS[kind]
    blocks = outputs * columns // 256
    raw = torch.randint(0, 256, (blocks, num_bytes), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for at in places:
        raw[:, at : at + 2] = random(blocks, 1, seed=at).half().view(torch.uint8)
    return Packed(kind=kind, codes=raw.reshape(outputs, -1), scales=None)


def equal(found: Tensor, expected: Tensor) -> bool:
    """Bit for bit, any NaN as good as another."""
    return found.dtype == expected.dtype and bool(((found == expected) | (found.isnan() & expected.isnan())).all())


def choose(path: str, patch: pytest.MonkeyPatch) -> None:
    """From now on `path` computes; skips where it cannot."""
    patch.setenv(VARIABLE, path)
    kernels.cache_clear()
    try:
        found = kernels()
    except UsageError as error:
        pytest.skip(str(error))
    if path != "off" and found.path == "torch":
        pytest.skip(found.reason)


@pytest.fixture(autouse=True)
def chosen_anew() -> Iterator[None]:
    """What one test chose is not what the next computes with."""
    kernels.cache_clear()
    yield
    kernels.cache_clear()


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    choose(request.param, monkeypatch)
    return str(request.param)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_path_gives_the_bits_of_the_reference(path: str, kind: Kind, dtype: torch.dtype) -> None:
    matrix, bias = prepare(packed(kind)), random(OUTPUTS, seed=3)
    x = random(65, COLUMNS, seed=1).to(dtype)
    expected = linear_reference(x, matrix, bias, torch.float32)
    for num in (1, 3, 16, 65):
        found = linear(x[:num], matrix, bias, torch.float32)
        assert equal(found, expected[:num]), num
    assert equal(linear(x, matrix, bias), expected.to(dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_same_in_any_batch(path: str, kind: Kind) -> None:
    matrix = prepare(packed(kind, 64))
    x = random(300, COLUMNS, seed=1)
    together = linear(x, matrix)
    assert equal(torch.cat([linear(x[m : m + 1], matrix) for m in range(64)]), together[:64])
    assert equal(torch.cat([linear(part, matrix) for part in x.split(7)]), together)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_near_the_product_with_the_dequantised_matrix(kind: Kind) -> None:
    matrix = packed(kind)
    x = random(8, COLUMNS, seed=1)
    exact = x @ dequantise(matrix).T
    error = (linear(x, prepare(matrix)) - exact).norm() / exact.norm()
    assert error < (1e-6 if kind == "nf4" else 1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_packed_comes_back_bit_for_bit(kind: Kind) -> None:
    matrix = packed(kind)
    prepared, expected = prepare(matrix), dequantise(matrix)
    assert torch.equal(whole(prepared), expected)
    assert torch.equal(rows(prepared, torch.tensor([40, 0, 33, 33])), expected[[40, 0, 33, 33]])
    assert torch.equal(whole(prepare(packed(kind, 2100, 256))), dequantise(packed(kind, 2100, 256)))


@pytest.mark.parametrize(
    ("kind", "bits"), [("int4", 4.5), ("int8", 8.5), ("nf4", 4.25), ("q4_k", 4.625), ("q6_k", 6.5625)]
)
def test_codes_stay_in_few_bits(kind: Kind, bits: float) -> None:
    assert prepare(packed(kind, 64)).num_bytes * 8 / (64 * COLUMNS) == bits
