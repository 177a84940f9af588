"""The card of a model with a memory, from the records of its run and of `riallm eval memory`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from riallm.models.rxt import RxTConfig
from riallm.recipes.card import TRAINING, Record, entry, head, percent, wrapped

MEMORY, CONTROLS = "memory", ("reset", "swap", "unread")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """As `card.Facts`. evaluations: the closing JSON objects of `riallm eval memory`, one a split."""

    name: str
    num_parameters: int
    num_bytes: int
    config: RxTConfig
    training: str
    evaluations: Sequence[Record] = field(default_factory=tuple)

    def of(self, split: str) -> Record | None:
        """The evaluation of a split, None where it was not made."""
        found = (each for each in self.evaluations if (each.get("task"), each.get("split")) == (MEMORY, split))
        return next(found, None)


def memory_card(facts: MemoryFacts) -> str:
    """The card as Markdown with its head."""
    parts = [_what(facts), _figures(facts), _data(), f"{TRAINING}{facts.training}", _limitations(facts)]
    return "\n\n".join((_head(facts).strip(), *(wrapped(part.strip()) for part in parts))) + "\n"


def memory_training(recipe: Record, stages: Sequence[tuple[Record, Sequence[Record]]]) -> str:
    """What a run's records say of the training. stages: each of the recipe with the lines of its metrics."""
    told = [f"Recipe {recipe['name']}, seed {recipe['seed']}, {len(stages)} stages one after the other:"]
    for stage, steps in stages:
        tokens = sum(step["num_tokens"] for step in steps)
        minutes = sum(step["seconds"] for step in steps) / 60
        read = stage["rows"] * stage["train"]["accumulate"] * len(steps)
        told.append(
            f"- {stage['name']}: {len(steps):,} steps, {read:,} conversations, {tokens / 1e6:.1f} million tokens with "
            f"padding, {minutes:.0f} minutes, learning rate {stage['train']['optimiser']['lr']:g}"
        )
    return "\n\n".join((told[0], "\n".join(told[1:])))


def _head(facts: MemoryFacts) -> str:
    tested = facts.of("test")
    results = []
    if tested is not None:
        value = tested["1x"][MEMORY]["exact"]["value"]
        results.append(entry("text-generation", "templated conversations", "exact match, held-out templates", value))
    return head(facts.name, language="en", tags=["memory", "reactive", "conversation"], results=results)


def _what(facts: MemoryFacts) -> str:
    config = facts.config
    if _remembers(facts):
        does = "is told facts in plain English and gives them back when asked, turns later"
        shows = (
            "It shows that a memory of fixed size carries what was said, and is no chat model: it knows the kinds of "
            "sentences that it was trained on, and nothing of the world."
        )
    else:
        does = "was trained on conversations in plain English in which facts are told, and asked for turns later"
        known = "the figures below do not show that" if facts.evaluations else "it was not measured whether"
        shows = f"Of this model {known} its memory carries what was said. It is no chat model."
    return f"""# {facts.name}

A Reactive Transformer of {facts.num_parameters / 1e6:.2f} million parameters ({facts.num_bytes / 1e6:.1f} MB) that
{does}. It sees one interaction at a time; what came
before is in a memory of {config.num_layers} layers of {config.num_slots} slots of {config.hidden_size} numbers, which
keeps its size however long the conversation is. Its decoder, encoder and memory attention are {config.hidden_size}
wide; an interaction has at most {config.max_interaction} tokens, query and answer together; vocabulary
{config.vocab_size:,}.

{shows}
"""


def _remembers(facts: MemoryFacts) -> bool:
    """Whether more is right with the memory than with any control, in the test, beyond both intervals."""
    tested = facts.of("test")
    if tested is None:
        return False
    usual = tested["1x"]
    return bool(usual[MEMORY]["exact"]["low"] > max(usual[name]["exact"]["high"] for name in CONTROLS))


def _figures(facts: MemoryFacts) -> str:
    if not facts.evaluations:
        return "## Figures\n\nNone were measured.\n"
    parts = [
        "## Figures\n\nThe value asked for, exact to the last character, by greedy decoding; the model's own answers "
        "are what is written into its memory. Controls are the same weights with a memory that was reset, the memory "
        "of another conversation, or no look at any. Intervals are of 95 %, as of conversations: the questions of one "
        "depend on each other."
    ]
    for split, what in (
        ("test", "sentences and values that training never had, of words that it had"),
        ("train", "sentences and values as in training, other conversations"),
        ("unseen", "values of words that training never had"),
    ):
        found = facts.of(split)
        if found is not None:
            parts.append(f"### {split}: {what}\n\n{_table(found)}")
    return "\n\n".join(parts)


def _table(found: Record) -> str:
    usual = found["1x"]
    memory: Mapping[str, Any] = usual[MEMORY]
    rows = ["| | exact | questions | beside it |", "| --- | --- | ---: | --- |"]

    def add(what: str, told: Record | None, beside: str = "") -> None:
        if told is not None and told["num"]:  # few questions may have none of a kind
            rows.append(f"| {what} | {percent(told)} | {told['num']:,} | {beside} |")

    controls = [f"{name} {percent(usual[name]['exact'])}" for name in CONTROLS]
    add("all", memory["exact"], ", ".join(controls))
    for distance in ("1", "2", "4", "8"):
        add(
            f"{distance} interaction{'' if distance == '1' else 's'} after it was told",
            memory["by_distance"].get(distance),
        )
    if memory["retold"]["num"]:
        stale = f"the old value {percent(memory['retold_stale'])}"
        add("after the value was changed", memory["retold"], stale)
    add("never told, and it says so", memory.get("untold"))
    add("with another conversation's memory, that one's value", usual["swap"]["donor"])
    for factor in ("2x", "4x"):
        longer = f"in conversations of {int(factor[0]) * found['turns']} interactions"
        add(longer, found[factor][MEMORY]["exact"])
    return "\n".join(rows) + f"\n\n`{found['command']}`"


def _data() -> str:
    return """## Data

Conversations from templates of this project (`riallm/data/conversations`), made as they are needed and written for it:
no text of anybody else. Facts are told, changed and asked for, of the user and of named people, among small talk.
Sentences and values of the test are left out of training; docs/models/rxt.md says how.
"""


def _limitations(facts: MemoryFacts) -> str:
    wrong = "What it answers may be wrong, or no sentence: nothing of it was measured."
    if facts.evaluations:
        wrong = (
            "Anything outside its kinds of sentences is answered with one of them, often wrongly. A fact that it was "
            "told may be forgotten or mixed up with another, which the figures above count."
        )
    return f"""## Limitations

{wrong} It has no knowledge, does not reason, and follows no instructions. What it says is not safe to act on.
"""
