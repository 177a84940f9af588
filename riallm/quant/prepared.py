"""The layout that packed matrices are computed with: panels of 32 rows side by side, still in few bits.

A panel holds, from the first column to the last, fours of columns: [row of 32][column of 4], one byte each, so that one
instruction of 64 bytes multiplies four columns of sixteen rows. Codes of four bits share bytes: of 32 columns the first
sixteen are low halves, the others high halves. Rows are padded to whole panels with zeros.

    kind         bytes of codes in 32 columns of a panel                bytes of scales of a panel
    int4         512                                                    32 columns: [row] float16
    nf4          512                                                    64 columns: [row] float16
    int8         1024, 128 added                                        32 columns: [row] float16
    q4_k         512                                                    256: [part of 8][scale, minimum][row] uint8,
                                                                        [scale, minimum][row] float16
    q6_k         768: of 16 columns the low halves as above (256),      256: [part of 16][row] int8, [row] float16
                 then [row][column] of four 2-bit pieces (128)

That is 4.5, 4.25, 8.5, 4.625 and 6.5625 bits a weight: GGUF's 4.5 and 6.5625, its 12 bytes of 6-bit scales in 16.
Letters: O rows, I columns, P panels, n rows asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from riallm.quant import nf4, superblocks
from riallm.quant.packed import Kind, Packed

PANEL = 32
_SLAB = 64 * PANEL  # rows that are laid out at a time: bounds the memory that this takes beside the result


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A matrix of `shape` (O, I) in panels. codes, scales: (P, bytes) uint8, as the module says."""

    kind: Kind
    shape: tuple[int, int]
    codes: Tensor
    scales: Tensor

    @property
    def num_bytes(self) -> int:
        """Memory of codes and scales, the padding counted in."""
        return self.codes.nbytes + self.scales.nbytes


class Parts(NamedTuple):
    """Rows as numbers: a weight is scale * code - minimum, of its group of columns.

    codes: (n, groups, columns of a group) float32, whole numbers (for nf4 the levels).
    scales: (n, groups) float32. minima: the same, None for kinds without.
    """

    codes: Tensor
    scales: Tensor
    minima: Tensor | None


def prepare(packed: Packed) -> Prepared:
    """The same matrix in panels; done once when a model is loaded."""
    rows, _ = packed.shape
    slabs = []
    for start in range(0, rows, _SLAB):
        scales = None if packed.scales is None else _padded(packed.scales[start : start + _SLAB])
        slabs.append(_laid_out(packed.kind, _padded(packed.codes[start : start + _SLAB]), scales))
    codes, scales = (torch.cat(part) for part in zip(*slabs, strict=True))
    return Prepared(kind=packed.kind, shape=packed.shape, codes=codes, scales=scales)


def joined(matrices: Sequence[Prepared]) -> tuple[Prepared, tuple[Prepared, ...]] | None:
    """Matrices of the same columns as one whose rows are theirs in order, and they again, as parts of its memory; None
    where they are of several kinds or have other than whole panels."""
    first = matrices[0]
    if any(each.kind != first.kind or each.shape[0] % PANEL or each.shape[1] != first.shape[1] for each in matrices):
        return None
    codes, scales = torch.cat([each.codes for each in matrices]), torch.cat([each.scales for each in matrices])
    panels = [len(each.codes) for each in matrices]
    views = zip(matrices, torch.split(codes, panels), torch.split(scales, panels), strict=True)
    own = tuple(replace(each, codes=part, scales=scale) for each, part, scale in views)
    shape = (sum(each.shape[0] for each in matrices), first.shape[1])
    return Prepared(kind=first.kind, shape=shape, codes=codes, scales=scales), own


def rows(prepared: Prepared, ids: Tensor) -> Tensor:
    """Rows by their numbers, (n,) -> (n, I) in float32: bit for bit those of the dequantised matrix."""
    codes, scales, minima = parts(prepared, ids)
    weights = codes * scales[..., None]
    return (weights if minima is None else weights - minima[..., None]).flatten(1)


def whole(prepared: Prepared) -> Tensor:
    """(O, I) in float32, bit for bit what `dequantise` makes of the packed matrix."""
    return rows(prepared, torch.arange(prepared.shape[0], device=prepared.codes.device))


def parts(prepared: Prepared, ids: Tensor) -> Parts:
    """Rows by their numbers, (n,), as codes and scales; other rows are not touched."""
    panel, lane = ids // PANEL, ids % PANEL
    data, kind = prepared.codes, prepared.kind

    def of_lane(data: Tensor, width: int) -> Tensor:
        """[panel][k][width][lane] -> (n, k, width)."""
        return data.view(len(data), -1, width, PANEL)[panel, :, :, lane]

    halves = prepared.scales.view(torch.float16)
    if kind == "q6_k":
        pieces = data.view(len(data), -1, 3, PANEL, 4)[panel, :, :, lane]
        low, high = pieces[:, :, :2], pieces[:, :, 2:]
        low = torch.cat((low & 15, low >> 4), dim=2)
        high = torch.cat([(high >> shift) & 3 for shift in (0, 2, 4, 6)], dim=2)
        small = of_lane(prepared.scales.view(torch.int8), 18)[..., :16].float()
        scales = small * of_lane(halves, 9)[..., 8:].float()
        return Parts((low | (high << 4)).flatten(2).float() - 32, scales.flatten(1), None)
    if kind == "int8":
        codes = data.view(len(data), -1, 8, PANEL, 4)[panel, :, :, lane].flatten(2).float() - 128
        return Parts(codes, of_lane(halves, 1).squeeze(2).float(), None)
    pairs = data.view(len(data), -1, 4, PANEL, 4)[panel, :, :, lane].flatten(2)
    codes = torch.cat((pairs & 15, pairs >> 4), dim=2)  # (n, I / 32, 32)
    if kind == "q4_k":
        small = of_lane(prepared.scales, 20)[..., :16].float().reshape(len(ids), -1, 8, 2)
        both = (small * of_lane(halves, 10)[..., None, 8:].float()).flatten(1, 2)
        return Parts(codes.float(), both[..., 0], both[..., 1])
    scales = of_lane(halves, 1).squeeze(2).float()
    if kind == "nf4":
        levels = torch.tensor(nf4.LEVELS, device=data.device)
        return Parts(levels[codes.reshape(len(ids), -1, nf4.BLOCK).long()], scales, None)
    return Parts(codes.float() - 8, scales, None)


def _padded(data: Tensor) -> Tensor:
    """Zero rows up to whole panels."""
    return torch.cat((data, data.new_zeros(-len(data) % PANEL, data.shape[1])))


def _laid_out(kind: Kind, codes: Tensor, scales: Tensor | None) -> tuple[Tensor, Tensor]:
    """Whole panels of rows -> codes and scales, (P, bytes) each."""
    if kind == "int8":
        fours = codes.view(torch.int32).reshape(-1, PANEL, codes.shape[1] // 4).transpose(1, 2).contiguous()
        fours = fours.view(torch.uint8) ^ 128
    elif kind in superblocks.BYTES:
        blocks = codes.reshape(-1, superblocks.BYTES[kind])
        return _q4_k(blocks, len(codes)) if kind == "q4_k" else _q6_k(blocks, len(codes))
    else:
        fours = _nibbles(torch.stack((codes & 15, codes >> 4), dim=-1).reshape(len(codes), -1))
    assert scales is not None
    return fours.reshape(len(fours), -1), _lanes(scales.unsqueeze(1)).view(torch.uint8).flatten(1)


def _nibbles(codes: Tensor) -> Tensor:
    """(rows, I) below 16 -> (P, I / 32, 4, PANEL * 4), the second sixteen of 32 columns in high halves."""
    # Four columns are moved as one number of 32 bits, four times as fast as bytes.
    fours = codes.view(torch.int32).reshape(-1, PANEL, codes.shape[1] // 32, 2, 4).permute(3, 0, 2, 4, 1).contiguous()
    halves = fours.view(torch.uint8)
    return halves[0] | (halves[1] << 4)


def _lanes(data: Tensor) -> Tensor:
    """(rows, k, columns) -> (P, columns, k, PANEL)."""
    return data.reshape(-1, PANEL, *data.shape[1:]).permute(0, 3, 2, 1).contiguous()


def _q4_k(blocks: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    _, _, codes = superblocks.q4_k_parts(blocks)
    small = torch.stack(superblocks.q4_k_scales(blocks), dim=-1).reshape(num_rows, -1, 16)  # [part][scale, minimum]
    large = blocks[:, :4].contiguous().view(torch.int16).reshape(num_rows, -1, 2)
    return _nibbles(codes.reshape(num_rows, -1)).flatten(1), _scales(small, large)


def _q6_k(blocks: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    _, codes = superblocks.q6_k_parts(blocks)
    fours = (codes + 32).view(torch.int32).reshape(-1, PANEL, blocks.shape[0] // num_rows * 16, 4)
    fours = fours.permute(3, 0, 2, 1).contiguous().view(torch.uint8)  # [four of 4][panel][16 columns][row and column]
    low = (fours[:2] & 15) | ((fours[2:] & 15) << 4)
    high = (fours[0] >> 4) | ((fours[1] >> 4) << 2) | ((fours[2] >> 4) << 4) | ((fours[3] >> 4) << 6)
    small = blocks[:, 192:208].reshape(num_rows, -1, 16)
    large = blocks[:, 208:].contiguous().view(torch.int16).reshape(num_rows, -1, 1)
    return torch.stack((low[0], low[1], high), dim=2).flatten(1), _scales(small, large)


def _scales(small: Tensor, large: Tensor) -> Tensor:
    """(rows, S, k) bytes and (rows, S, j) of two bytes -> (P, bytes): for each super-block [k][row], then [j][row]."""
    lanes = (_lanes(part.transpose(1, 2)).view(torch.uint8).flatten(2) for part in (small, large))
    return torch.cat(tuple(lanes), dim=2).flatten(1)
