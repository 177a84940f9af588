"""From logits to the next token, as `Sampling` says. One random number a token, so that a seed tells all.

Letters: V vocabulary.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from torch import Tensor

from riallm.engine.request import Sampling, Token

FIRST = 256
"""Likeliest tokens that are looked at first, since they nearly always hold all of top_p."""


class Chooser:
    """Draws the tokens of one request; knows which tokens there were."""

    def __init__(self, sampling: Sampling, prompt: tuple[int, ...]) -> None:
        self.sampling = sampling
        self._draw = np.random.Generator(np.random.Philox(sampling.seed))
        self._answer: Counter[int] = Counter()
        self._seen = set(prompt) if sampling.repetition_penalty != 1.0 else set[int]()
        self._plain = not (
            sampling.logit_bias
            or sampling.repetition_penalty != 1.0
            or sampling.presence_penalty
            or sampling.frequency_penalty
        )

    def choose(self, logits: Tensor, allowed: bytes | None = None) -> int:
        """The next token from logits (V,) in float32; `allowed` as `Grammar` gives it. It counts as taken."""
        if not self._plain:
            logits = self._penalised(logits)
        if allowed is not None:
            bits = np.unpackbits(np.frombuffer(allowed, dtype=np.uint8), count=len(logits), bitorder="little")
            logits = logits.masked_fill(torch.from_numpy(bits == 0), float("-inf"))
        token = int(logits.argmax()) if self.sampling.temperature == 0.0 else self._drawn(logits)
        self._answer[token] += 1
        if self.sampling.repetition_penalty != 1.0:
            self._seen.add(token)
        return token

    def _penalised(self, logits: Tensor) -> Tensor:
        own, logits = self.sampling, logits.clone()
        for token, bias in own.logit_bias.items():
            logits[token] += bias
        if self._seen:
            places = torch.tensor(sorted(self._seen))
            there = logits[places]
            logits[places] = torch.where(there > 0, there / own.repetition_penalty, there * own.repetition_penalty)
        for token, count in self._answer.items():
            logits[token] -= own.presence_penalty + own.frequency_penalty * count
        return logits

    def _drawn(self, logits: Tensor) -> int:
        own = self.sampling
        logits = logits / own.temperature
        whole = float(torch.logsumexp(logits, dim=-1))
        num = min(len(logits), own.top_k or len(logits))
        # Sorting a whole vocabulary takes longer than all else here, and its tail is nearly always cut off.
        first = min(num, FIRST) if own.top_p < 1.0 or own.min_p > 0.0 else num
        probs, places = _likeliest(logits, first, whole)
        if first < num and (own.top_k or (probs.sum() < own.top_p and probs[-1] >= own.min_p * probs[0])):
            probs, places = _likeliest(logits, num, whole)
        if own.top_k:
            probs = probs / probs.sum()
        if own.top_p < 1.0:
            probs = np.where(np.cumsum(probs) - probs < own.top_p, probs, 0.0)
        if own.min_p > 0.0:
            probs = np.where(probs >= own.min_p * probs[0], probs, 0.0)
        total = np.cumsum(probs)
        at = int(np.searchsorted(total, self._draw.random() * total[-1], side="right"))
        return int(places[min(at, int(np.flatnonzero(probs)[-1]))])


def _likeliest(logits: Tensor, num: int, whole: float) -> tuple[np.ndarray, np.ndarray]:
    values, places = logits.topk(num) if num < len(logits) else logits.sort(descending=True, stable=True)
    return np.exp(values.double().numpy() - whole), places.numpy()


def told(logits: Tensor, token: int, num: int | None) -> Token:
    """What is told of a token: itself, and with `num` its log-probability and so many alternatives."""
    if num is None:
        return Token(id=token)
    log_probs = logits.log_softmax(dim=-1)
    top = log_probs.topk(num) if num else None
    likeliest = () if top is None else tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return Token(id=token, logprob=float(log_probs[token]), top=likeliest)
