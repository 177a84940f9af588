"""Packed matrices times activations: every kind on every path gives the reference's bits, whatever the batch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from riallm.core.errors import UsageError
from riallm.quant.compiled import PATHS, VARIABLE, kernels
from riallm.quant.matmul import SMALLEST, linear, linear_reference
from riallm.quant.packed import KINDS, Kind, Packed, dequantise, quantise
from riallm.quant.prepared import Prepared, prepare, rows, whole

SUPER_BLOCKS = {"q4_k": (144, (0, 2)), "q6_k": (210, (208,))}  # bytes, and where their float16 scales are
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


@pytest.mark.parametrize(("kind", "columns"), [("int4", 32), ("int4", 352), ("int8", 288), ("nf4", 64), ("nf4", 320)])
def test_rows_that_end_within_a_chunk(path: str, kind: Kind, columns: int) -> None:
    matrix, x = prepare(packed(kind, 33, columns)), random(9, columns, seed=1)
    assert torch.equal(whole(matrix), dequantise(packed(kind, 33, columns)))
    assert equal(linear(x, matrix), linear_reference(x, matrix))


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


def extreme(kind: Kind) -> Packed:
    """Every code, under scales of zero, the smallest and the largest, both signs."""
    if kind in SUPER_BLOCKS:
        matrix = packed(kind)
        num_bytes, places = SUPER_BLOCKS[kind]
        blocks = matrix.codes.view(-1, num_bytes)
        odd = torch.tensor([0.0, 6e-8, -6e-8, 60000.0, -60000.0]).half().repeat(len(blocks))[: len(blocks)]
        for at in places:
            blocks[:, at : at + 2] = odd[:, None].view(torch.uint8)
        return matrix
    width = COLUMNS if kind == "int8" else COLUMNS // 2
    codes = torch.arange(OUTPUTS * width).remainder(256).to(torch.uint8).reshape(OUTPUTS, width)
    block = 64 if kind == "nf4" else 32
    odd = torch.tensor([0.0, 6e-8, -6e-8, 60000.0, -60000.0, 1.0, -1.0]).half()
    scales = odd.repeat(OUTPUTS * COLUMNS)[: OUTPUTS * COLUMNS // block].reshape(OUTPUTS, -1)
    return Packed(kind=kind, codes=codes.view(torch.int8) if kind == "int8" else codes, scales=scales)


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_codes_scales_and_activations(path: str, kind: Kind) -> None:
    matrix = extreme(kind)
    prepared = prepare(matrix)
    assert torch.equal(whole(prepared), dequantise(matrix))
    x = random(7, COLUMNS, seed=1)
    x[1] = 0.0
    x[2] *= 1e38
    x[3] *= 1e-38
    x[4] = torch.full((COLUMNS,), 3.4e38)
    x[5] = SMALLEST / 2
    x[6, ::3] = 1e30
    assert equal(linear(x, prepared), linear_reference(x, prepared))
    assert not linear(x[1:2], prepared).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_spoils_its_own_row_alone(path: str, kind: Kind, dtype: torch.dtype) -> None:
    matrix = prepare(packed(kind))
    x = random(20, COLUMNS, seed=1).to(dtype)
    clean = linear(x, matrix)
    for row, column, value in ((1, 5, torch.nan), (8, 767, torch.inf), (19, 300, -torch.inf)):
        x[row, column] = value
    spoilt = linear(x, matrix)
    rest = [row for row in range(20) if row not in (1, 8, 19)]
    assert equal(spoilt[rest], clean[rest])
    assert not spoilt[[1, 8, 19]].isfinite().any()
    assert kind == "nf4" or spoilt[[1, 8, 19]].isnan().all()


@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_change_a_bit(path: str, kind: Kind) -> None:
    matrix, x = prepare(packed(kind, 200)), random(33, COLUMNS, seed=1)
    before, found = torch.get_num_threads(), []
    try:
        for num in (1, 2, 3):
            torch.set_num_threads(num)
            found.append(linear(x, matrix))
    finally:
        torch.set_num_threads(before)
    assert equal(found[1], found[0]) and equal(found[2], found[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_that_of_the_dequantised_matrix(kind: Kind, dtype: torch.dtype) -> None:
    matrix = packed(kind)
    x = random(2, 5, COLUMNS, seed=1).to(dtype).requires_grad_()
    bias, weights = random(OUTPUTS, seed=2).requires_grad_(), random(2, 5, OUTPUTS, seed=3)
    found = linear(x, prepare(matrix), bias)
    assert equal(found.detach(), linear(x.detach(), prepare(matrix), bias.detach()))
    (found.float() * weights).sum().backward()
    grads = x.grad, bias.grad
    x.grad = bias.grad = None
    exact = torch.nn.functional.linear(x.float(), dequantise(matrix), bias)
    (exact * weights.to(dtype)).sum().backward()
    for mine, theirs in zip(grads, (x.grad, bias.grad), strict=True):
        assert mine is not None and theirs is not None and mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-3)


def test_gradients_of_a_matrix_of_many_rows() -> None:
    matrix = packed("int4", 4101, 32)  # more than are dequantised at a time
    x, weights = random(3, 32, seed=1).requires_grad_(), random(3, 4101, seed=2)
    (linear(x, prepare(matrix)) * weights).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, weights @ dequantise(matrix), rtol=1e-4, atol=1e-3)
    assert equal(linear(x.detach(), prepare(matrix)), linear_reference(x.detach(), prepare(matrix)))


def test_without_the_library_torch_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, x = prepare(packed("int4")), random(2, 3, COLUMNS, seed=1).bfloat16()
    with_it = linear(x, matrix)
    choose("off", monkeypatch)
    assert kernels().linear is None
    assert equal(linear(x, matrix), with_it) and with_it.shape == (2, 3, OUTPUTS)


def test_no_rows_and_rows_that_do_not_lie_together() -> None:
    matrix, x = prepare(packed("q6_k")), random(COLUMNS, 6, seed=1).T
    assert linear(x[:0], matrix).shape == (0, OUTPUTS)
    assert equal(linear(x, matrix), linear(x.contiguous(), matrix))
    assert equal(linear(x[::2], matrix), linear(x, matrix)[::2])


def test_what_cannot_be_multiplied_is_refused() -> None:
    matrix: Prepared = prepare(packed("int8"))
    with pytest.raises(UsageError, match=r"got x of \(2, 64\) for a matrix of \(41, 768\)"):
        linear(torch.zeros(2, 64), matrix)
    with pytest.raises(UsageError, match=r"float32 or bfloat16, got torch\.float16"):
        linear(torch.zeros(2, COLUMNS, dtype=torch.float16), matrix)
