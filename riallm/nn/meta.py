"""What is known of every token beside its id: position, segment, file, and how the files of a row are related.

The same record serves training and serving. Letters: B rows, T tokens, F files of a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor


class Relation(IntEnum):
    """How the file of a query token is related to the file of a key token (RIA document, 2.3.1)."""

    NONE = 0
    SAME = 1
    IMPORT = 2  # the query's file imports the key's file
    MODULE = 3  # both lie in one package folder


NUM_RELATIONS = 3  # those that have a learned term
PADDING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMeta:
    """positions (B, T): distance from the segment's begin. segments (B, T): tokens see their own segment only; that
    of padding is PADDING.
    files (B, T): index of a token's file within its row, below F. relations (B, F, F): `Relation` of row file to
    column file. All are integers; one file and one segment a row is the plain case (`TokenMeta.plain`)."""

    positions: Tensor
    segments: Tensor
    files: Tensor
    relations: Tensor

    @staticmethod
    def plain(num_rows: int, num_tokens: int, *, start: int = 0, device: torch.device | str = "cpu") -> TokenMeta:
        """One file and one segment in every row, positions from `start`."""
        positions = torch.arange(start, start + num_tokens, device=device).expand(num_rows, num_tokens)
        zeros = torch.zeros_like(positions)
        relations = torch.full((num_rows, 1, 1), int(Relation.SAME), dtype=torch.int64, device=device)
        return TokenMeta(positions=positions, segments=zeros, files=zeros, relations=relations)

    @staticmethod
    def padded(mask: Tensor) -> TokenMeta:
        """As `plain`, for rows that are filled up behind their tokens; mask (B, T): True for tokens."""
        meta = TokenMeta.plain(*mask.shape, device=mask.device)
        return replace(meta, segments=torch.where(mask, meta.segments, PADDING))

    @property
    def real(self) -> Tensor:
        """(B, T): tokens that are no padding."""
        return self.segments != PADDING

    @property
    def num_files(self) -> int:
        """F: how many files a row may hold."""
        return self.relations.shape[-1]

    def to(self, device: torch.device | str) -> TokenMeta:
        """The record on another device."""
        return TokenMeta(
            positions=self.positions.to(device),
            segments=self.segments.to(device),
            files=self.files.to(device),
            relations=self.relations.to(device),
        )


def related(query: TokenMeta, key: TokenMeta) -> Tensor:
    """(B, Tq, Tk): the `Relation` of each query token's file to each key token's file; the table is the query's."""
    rows = torch.arange(query.files.shape[0], device=query.files.device)[:, None, None]
    return query.relations[rows, query.files[:, :, None], key.files[:, None, :]]
