"""What whoever serves a model needs of its tokenizer, whatever kind it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from riallm.tokenizer.special import END_OF_TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Fim:
    """Ids of the markers of fill-in-the-middle. order: "psm" is prefix, suffix, middle; "spm" has the suffix first.
    file: opens another file, its path up to the end of the line; repo: opens a repository. None: there is none."""

    prefix: int
    suffix: int
    middle: int
    order: Literal["psm", "spm"] = "psm"
    file: int | None = None
    repo: int | None = None
    pad: int | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """All markers; an answer that writes one of them is over."""
        found = (self.prefix, self.suffix, self.middle, self.file, self.repo, self.pad)
        return tuple(index for index in found if index is not None)


class TextTokenizer(Protocol):
    """Text to ids and back. Safe to share between threads."""

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        ...

    @property
    def specials(self) -> Mapping[str, int]:
        """Tokens that ordinary text never becomes, by the name that stands for them in trusted text."""
        ...

    @property
    def hidden(self) -> frozenset[int]:
        """Those of the specials that are no part of an answer's text."""
        ...

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids of which each ends an answer."""
        ...

    @property
    def start(self) -> tuple[int, ...]:
        """Ids that stand before a text that begins from nothing; a chat template writes its own."""
        ...

    @property
    def chat_template(self) -> str | None:
        """The model's own, in jinja; None for a model that has none."""
        ...

    @property
    def fim(self) -> Fim | None:
        """Markers of fill-in-the-middle; None for a model that has none."""
        ...

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """Ids of any text, without `start`. Names of specials in it stay text unless `specials`; ask for that only
        where the text is trusted."""
        ...

    def pieces(self, text: str) -> list[int | str]:
        """Trusted text cut at its specials: ids of these, and the text between them."""
        ...

    def decode_bytes(self, ids: Sequence[int], *, specials: bool = False) -> bytes:
        """The bytes that go on a text, hidden tokens by name or, without `specials`, left out. Raises UsageError for
        an id that there is not."""
        ...


MARKERS: tuple[tuple[str, str, str], ...] = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder, RIA
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder, Granite
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder: the hole stands before the suffix
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # CodeLlama
)
FILES = ("<|file_sep|>", "<file_sep>")
REPOS = ("<|repo_name|>", "<repo_name>")
PADS = ("<|fim_pad|>", "<fim_pad>", "<fim-pad>")

ENDS = (
    "<|endoftext|>",
    "<|im_end|>",
    END_OF_TEXT,
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
    "<｜end▁of▁sentence｜>",
    "<|EOT|>",
)
"""Names that end an answer in the models that have them."""


def find_fim(specials: Mapping[str, int], *, order: Literal["psm", "spm"] = "psm") -> Fim | None:
    """The markers that a model's specials have, by the names that models use."""
    for prefix, suffix, middle in MARKERS:
        if {prefix, suffix, middle} <= set(specials):
            return Fim(
                prefix=specials[prefix],
                suffix=specials[suffix],
                middle=specials[middle],
                order=order,
                file=_first(specials, FILES),
                repo=_first(specials, REPOS),
                pad=_first(specials, PADS),
            )
    return None


def find_ends(specials: Mapping[str, int], own: Sequence[int] = ()) -> tuple[int, ...]:
    """The ends that a model names itself, and specials whose name says that they are ends."""
    return tuple(dict.fromkeys([*own, *(specials[name] for name in ENDS if name in specials)]))


def _first(specials: Mapping[str, int], names: Sequence[str]) -> int | None:
    return next((specials[name] for name in names if name in specials), None)
