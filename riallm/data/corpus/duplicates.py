"""Files that the corpus holds already: equal token by token, or with nearly the same runs of five tokens.

Near copies are found with MinHash (Broder 1997) over 128 permutations and an LSH index, and counted as copies at an
estimated Jaccard similarity of 0.8 (Lee et al. 2022 for why they go).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from riallm.core.errors import UsageError
from riallm.core.files import sha256
from riallm.data.corpus.filters import EXACT, NEAR
from riallm.data.corpus.lex import Tokens, numpy

PERMUTATIONS = 128
THRESHOLD = 0.8


@dataclass(slots=True, kw_only=True)
class Kept:
    """Everything that the corpus holds so far, for comparison. `signatures` are rows of 128 uint32."""

    exact: set[str] = field(default_factory=set)
    signatures: list[Any] = field(default_factory=list)
    _index: Any = None

    def copy_of(self, tokens: Tokens) -> tuple[str | None, str, Any]:
        """(reason or None, digest of the tokens, signature); pass the last two to `add` when the file is kept.

        Raises UsageError when datasketch is missing.
        """
        digest = sha256(tokens.codes.tobytes())
        if digest in self.exact:
            return EXACT, digest, None
        signature = self._signature(tokens)
        for key in self._lsh().query(signature):
            same = (self.signatures[key] == signature.hashvalues).mean()
            if same >= THRESHOLD:
                return NEAR, digest, signature.hashvalues
        return None, digest, signature.hashvalues

    def add(self, digest: str, hashvalues: Any) -> None:
        """Remember a file that is kept."""
        self.exact.add(digest)
        self._lsh().insert(len(self.signatures), self._made(hashvalues), check_duplication=False)
        self.signatures.append(hashvalues)

    def _lsh(self) -> Any:
        if self._index is None:
            self._index = _datasketch().MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
        return self._index

    def _signature(self, tokens: Tokens) -> Any:
        made = _datasketch().MinHash(num_perm=PERMUTATIONS, hashfunc=int)
        shingles = tokens.shingles()
        for start in range(0, len(shingles), 20_000):  # in parts: a part becomes a matrix of 128 columns
            made.update_batch(shingles[start : start + 20_000].tolist())
        return made

    def _made(self, hashvalues: Any) -> Any:
        np = numpy()
        values = np.asarray(hashvalues, dtype=np.uint32)
        return _datasketch().MinHash(num_perm=PERMUTATIONS, hashvalues=values, scheme="affine32")


def _datasketch() -> Any:
    try:
        return import_module("datasketch")
    except ImportError as error:
        raise UsageError("datasketch is missing; install it: pip install 'riallm[data]'.") from error
