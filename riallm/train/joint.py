"""Joint training of encoder and decoder (RxT document, Joint Language Models Pre-Training and Interaction SFT).

Letters: R rows of one interaction or one piece of text, T tokens, L layers, D hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riallm.core.errors import UsageError
from riallm.models.base import Model
from riallm.models.episodes import Episodes
from riallm.models.rxt import RxT, RxTConfig
from riallm.nn.linear import Linear
from riallm.nn.meta import TokenMeta
from riallm.tokenizer.special import hole
from riallm.train.episodes import evenness
from riallm.train.objective import Loss

HEAD = "masked_head"

HIDDEN = hole(0)
"""The special token in a hidden one's place: in text it stands for what was taken out, and interactions have no use for
it."""


class MaskedHead(nn.Module):
    """Names hidden tokens from what the encoder makes of their places."""

    def __init__(self, hidden_size: int, vocab_size: int) -> None:
        super().__init__()
        self.inner = Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.outer = Linear(hidden_size, vocab_size)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., V) in float32."""
        inner = F.gelu(self.inner(x))
        out: Tensor = self.outer(self.norm(inner.float()).to(x.dtype))
        return out.float()


class JointRxT(RxT):
    """The model with a head that training needs and nobody ships. mask_token: stands for tokens that are hidden from
    the encoder."""

    def __init__(self, config: RxTConfig, *, mask_token: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(config, dtype=dtype)
        self.mask_token = mask_token
        self.masked_head = MaskedHead(config.hidden_size, config.vocab_size)

    def shipped(self) -> RxT:
        """The model without the head, a copy."""
        made = RxT(self.config, dtype=self.dtype)
        made.load_state_dict({name: p for name, p in self.state_dict().items() if not name.startswith(f"{HEAD}.")})
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """The encoder reads a copy of which a share is hidden, and its head names what; what it made of the copy, detached,
    stands in the memory's place while the decoder says the same tokens one after the other.

    What the decoder has to say stands before its eyes: 85 of 100 tokens are in the copy, so that looking them up is
    enough, and its loss says little about language. The document knows it ("access to all next tokens information")
    and wants the look-up learned. Of the tokens that were hidden it sees a guess from both sides. The metrics
    `seen_nats` and `hidden_nats` are a token's of either kind; the second is the one to compare with other models, and
    that only as an upper bound on what it would be without the text behind the token. On tokens that are drawn
    evenly nothing but looking up gets below ln V, as a test shows.

    hidden: share of the tokens that the encoder does not see, each replaced by the model's `mask_token`. zeroed: share
    of places whose output becomes zero in the memory's stead, noise: standard deviation of what is added to the rest;
    both make the look-up harder, and the document's authors offer both without saying how much. masked: weight of the
    head's loss against the decoder's, both means. Padding is never hidden, said, counted or looked at.
    """

    hidden: float = 0.15
    zeroed: float = 0.0
    noise: float = 0.0
    masked: float = 1.0
    balance: float = 0.01
    z: float = 0.001

    def __post_init__(self) -> None:
        if not (0.0 < self.hidden < 1.0 and 0.0 <= self.zeroed < 1.0 and self.noise >= 0.0):
            raise UsageError(
                f"hidden and zeroed are shares below 1, hidden above 0, noise is at least 0; got {self.hidden}, "
                f"{self.zeroed} and {self.noise}"
            )

    def __call__(self, model: Model, batch: Episodes) -> Loss:
        """nats: the sum over `answers`, each with its own interaction alone; all else means times units."""
        assert isinstance(model, JointRxT), "joint training is for a model with a head for what is hidden"
        some = batch.mask.any(dim=-1)
        tokens, mask, answers = batch.tokens[some], batch.mask[some], batch.answers[some]
        draw = torch.Generator().manual_seed(batch.seed)  # on the processor, so that every device draws the same
        hidden = _share(self.hidden, mask, draw)
        encoded = model.encode(torch.where(hidden, model.mask_token, tokens), mask)
        units = batch.num_units
        named = F.cross_entropy(model.masked_head(encoded[-1][hidden]), tokens[hidden], reduction="sum")
        memory = model.start(1)
        reading = model.reading(replace(memory, slots=self._worn(encoded.detach(), mask, draw)))
        state = model.open_turn(memory, replace(reading, mask=mask), keep=False)
        out = model(tokens, TokenMeta.padded(mask), state)
        before = answers.roll(-1, dims=-1)  # the first token is never said, so nothing comes round
        each = F.cross_entropy(model.logits(out.hidden[before]), tokens[answers], reduction="none")
        terms = {"nats": each.sum(), "masked": self.masked * units * named / hidden.sum().clamp(min=1)}
        terms |= evenness(out.routing, units, balance=self.balance, z=self.z)
        unseen = hidden[answers]
        metrics = {"masked_nats": _mean(named[None], hidden), "seen_nats": _mean(each[~unseen], ~unseen)}
        return Loss(terms=terms, metrics={**metrics, "hidden_nats": _mean(each[unseen], unseen)})

    def _worn(self, encoded: Tensor, mask: Tensor, draw: torch.Generator) -> Tensor:
        """encoded (L, R, T, D) with some places empty and noise on the others."""
        if self.noise:
            noise = torch.zeros_like(encoded)
            layers, hidden = encoded.shape[0], encoded.shape[-1]
            drawn = torch.randn((int(mask.sum()), layers, hidden), generator=draw)
            noise[:, mask] = self.noise * drawn.transpose(0, 1).to(encoded)
            encoded = encoded + noise
        return encoded * ~_share(self.zeroed, mask, draw)[None, ..., None] if self.zeroed else encoded


def _share(share: float, mask: Tensor, draw: torch.Generator) -> Tensor:
    """A share of the tokens of mask (R, T); drawn token by token, so that padding changes nothing."""
    found = torch.zeros_like(mask)
    found[mask] = (torch.rand(int(mask.sum()), generator=draw) < share).to(mask.device)
    return found


def _mean(nats: Tensor, counted: Tensor) -> float:
    return float(nats.detach().sum()) / max(1, int(counted.sum()))
