"""The training recipes by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from riallm.core.errors import UsageError
from riallm.recipes import ria, rxt_beta_micro, rxt_nano
from riallm.train.stage import Stage
from riallm.train.staged import StagedRecipe

TIERS = ("ria-1b", "ria-8b", "ria-64b", "ria-128b")
RECIPES: dict[str, Callable[[], Stage]] = {
    "ria_nano": ria.ria_nano,
    "ria_nano_repair": ria.ria_nano_repair,
    "ria_small": ria.ria_small,
    "ria_medium": ria.ria_medium,
    "ria_trial": ria.ria_trial,
    "ria_smoke": ria.ria_smoke,
    **{f"{tier}_as_written": partial(ria.as_written, tier) for tier in TIERS},
}

STAGED: dict[str, Callable[[], StagedRecipe]] = {
    "rxt_nano": rxt_nano.rxt_nano,
    "rxt_nano_gpu": rxt_nano.rxt_nano_gpu,
    "rxt_smoke": rxt_nano.rxt_smoke,
    "rxt_beta_micro": rxt_beta_micro.rxt_beta_micro,
}
"""Recipes of several stages, for models with a memory."""


def recipe(name: str) -> Stage:
    """The stage of a name; UsageError lists the known ones."""
    if name not in RECIPES:
        raise UsageError(f"no recipe '{name}'; there are {', '.join((*RECIPES, *STAGED))}")
    return RECIPES[name]()
