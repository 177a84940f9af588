"""The model card, from the records of the run and of the evaluations: nothing in it is written by hand but the words.

The head is YAML as model hubs read it; its values are JSON, which YAML contains.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from riallm.data.corpus.manifest import Manifest
from riallm.models.ria import RIAConfig

Record = Mapping[str, Any]
TRAINING = "## Training\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """num_bytes: of the model's files. training: what the card says of it, without a title (`training`). corpus: None
    for a model from the interpreter's library. evaluations: the closing JSON objects of `riallm eval`, as saved."""

    name: str
    num_parameters: int
    num_bytes: int
    config: RIAConfig
    training: str
    corpus: Manifest | None
    evaluations: Sequence[Record] = field(default_factory=tuple)

    def of(self, task: str, **wanted: str) -> Record | None:
        """The evaluation of a task, None where it was not made."""
        for record in self.evaluations:
            if record.get("task") == task and all(record.get(key) == value for key, value in wanted.items()):
                return record
        return None


def card(facts: Facts) -> str:
    """The card as Markdown with its head."""
    parts = [_what(facts), _figures(facts), _data(facts), f"{TRAINING}{facts.training}", _limitations(facts)]
    return "\n\n".join((_head(facts).strip(), *(wrapped(part.strip()) for part in parts))) + "\n"


def wrapped(text: str) -> str:
    """Plain paragraphs broken anew, since the figures in them have any length."""
    return "\n\n".join(
        part if part.startswith(("#", "|", "-")) else textwrap.fill(part, 120, break_on_hyphens=False)
        for part in text.split("\n\n")
    )


def head(name: str, *, language: str, tags: Sequence[str], results: Sequence[Record]) -> str:
    """The metadata; figures as a model index."""
    values: dict[str, Any] = {
        "license": "apache-2.0",
        "language": [language],
        "library_name": "riallm",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    if results:
        values["model-index"] = [{"name": name, "results": results}]
    lines = [f"{key}: {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(("---", *lines, "---", ""))


def _head(facts: Facts) -> str:
    results = []
    bits = facts.of("bpb")
    if bits is not None:
        every = next(row for row in bits["rows"] if row["package"] == "all")
        results.append(entry("text-generation", "held-out packages", "bits per byte", every["model"]))
    for name in ("held_out", "humaneval_infilling"):
        filled = facts.of("infill", set=name)
        if filled is not None:
            results.append(entry("text-generation", name, "exact match, single lines", filled["model"]["value"]))
    return head(facts.name, language="code", tags=["python", "code", "infilling", "program-repair"], results=results)


def entry(task: str, data: str, metric: str, value: float) -> dict[str, Any]:
    """A figure of the model index."""
    return {
        "task": {"type": task},
        "dataset": {"name": data, "type": "python"},
        "metrics": [{"name": metric, "type": metric.replace(" ", "_").replace(",", ""), "value": round(value, 4)}],
    }


def _what(facts: Facts) -> str:
    model = facts.config
    return f"""# {facts.name}

A RIA model of {facts.num_parameters / 1e6:.1f} million parameters ({facts.num_bytes / 1e6:.1f} MB) for Python: it
fills holes, and mends functions. {model.num_hidden_layers} layers of {model.hidden_size}, vocabulary
{model.vocab_size:,}, context {model.max_position_embeddings:,} tokens, of which a token sees the last
{model.file_window} of its own file. It ranks and proposes edits in `riallm fix`; tests in a sandbox decide.

It was not trained to write programs from descriptions, to follow instructions, to talk, or for any language but
Python. The tool router that the architecture has is untrained.
"""


def percent(estimate: Record, digits: int = 1) -> str:
    """An estimate as percent with its interval."""
    value, low, high = (f"{100 * estimate[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} % [{low}, {high}]"


def _figures(facts: Facts) -> str:
    rows = []
    bits = facts.of("bpb")
    if bits is not None:
        every = next(row for row in bits["rows"] if row["package"] == "all")
        rows.append(
            f"| bits per byte, {every['num_bytes']:,} bytes of held-out packages | {every['model']:.3f} | "
            f"xz over all {every['xz']:.3f}, 5-gram that learns as it goes {every['ngram']:.3f} |"
        )
    for name in ("held_out", "humaneval_infilling"):
        filled = facts.of("infill", set=name)
        if filled is not None:
            rows.append(
                f"| single lines filled exactly, {filled['num']} of {name} | {percent(filled['model'])} | "
                f"n-gram {percent(filled['ngram'])} |"
            )
    for record in facts.evaluations:
        if record.get("task") == "repair":
            rows += _repair_rows(record)
        if record.get("task") == "pass":
            told = ", ".join(f"pass@{k} {percent(value)}" for k, value in record["pass_at"].items())
            rows.append(f"| {record['set']} | {told} | |")
    extraction = facts.of("extraction")
    if extraction is not None:
        rows.append(
            f"| prompts of {extraction['prompt_tokens']} training tokens continued verbatim, {extraction['prompts']} "
            f"prompts | {percent(extraction['verbatim_no_boilerplate'], 2)} | with boilerplate "
            f"{percent(extraction['verbatim'], 2)}; gate {100 * extraction['gate']:g} % |"
        )
    if not rows:
        return "## Figures\n\nNone were measured.\n"
    return "## Figures\n\n| what | the model | beside it |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"


def _repair_rows(record: Record) -> list[str]:
    arms = record["arms"]
    rows = []
    for depth in ("10", "50", "200"):
        told = [(arm, figures["fixed"]["correct"].get(depth)) for arm, figures in arms.items()]
        ours = next((value for arm, value in reversed(told) if value and arm in ("B4", "B3")), None)
        beside = ", ".join(f"{arm} {percent(value)}" for arm, value in told if value and arm not in ("B3", "B4"))
        if ours is not None:
            rows.append(
                f"| bugs of the set {record['set']} mended within {depth} candidates, {record['num']} bugs | "
                f"{percent(ours)} | {beside} |"
            )
    return rows


def _data(facts: Facts) -> str:
    corpus = facts.corpus
    if corpus is None:
        return "## Data\n\nPackages of the Python standard library.\n"
    sums = corpus.totals("train")
    left = ", ".join(f"{name} {count.files:,}" for name, count in sorted(corpus.left_out().items()))
    found = ", ".join(f"{name} {count}" for name, count in sorted(corpus.contaminated().items())) or "none"
    return f"""## Data

The corpus {corpus.recipe} (content {corpus.content[:16]}): {sums["kept_bytes"] / 1e6:.0f} MB, {sums["kept_files"]:,}
files of {sums["packages"]} pinned releases with permissive licences; THIRD_PARTY.md lists them all. Licences are read
file by file; copies, generated files, secrets and e-mail addresses were left out. Files left out by reason: {left}.
Left out because they are in an evaluation set: {found}. Bugs for the repair rows were put into the same files by the
injectors of `riallm/data`.
"""


def training_of(card: str) -> str:
    """What a card says of the training, without its title; "" where it has no such part."""
    found = re.search(rf"^{TRAINING}(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def corpus_of(card: str) -> str:
    """Which corpus a card names; "" where it names none."""
    found = re.search(r"^The corpus (\S+) \(content ", card, re.MULTILINE)
    return found[1] if found else ""


def training(stage: Record, result: Record, steps: Sequence[Record], before: str) -> str:
    """What a run's own records say of the training. steps: the lines of its metrics. before: what the card of the model
    that it started from says."""
    train, batches = stage["train"], stage["batches"]
    seconds = sum(step["seconds"] for step in steps)
    flops = sum(step["flops_per_second"] * step["seconds"] for step in steps)
    tokens = sum(step["num_tokens"] for step in steps)
    shares = ", ".join(f"{name} {share:g}" for name, share in batches["mixture"].items())
    later = ", ".join(f"{name} {share:g}" for name, share in (batches["later"] or {}).items())
    then = f", from batch {batches['later_from']:,} on {later}" if later else ""
    begun = f"{before}\n\nFrom there on: " if before else ""
    return f"""{begun}Recipe {stage["name"]}, seed {train["seed"]}: {result["steps"]:,} steps,
{tokens / 1e6:.1f} million tokens,
{seconds / 60:.0f} minutes on the {result.get("device", "processor")}, {flops:.2e} FLOPs by the model's own count.
Rows of {batches["context"]} tokens; shares: {shares}{then}. Optimiser {train["optimiser"]["kind"]}, learning rate
{train["optimiser"]["lr"]:g} (embeddings {train["optimiser"]["embedding_lr"]:g}), running mean of the weights
{train["ema"]:g}. Validation packages, next token: {result["bits_per_byte"]:.3f} bits per byte.
"""


def _limitations(facts: Facts) -> str:
    repair = [record for record in facts.evaluations if record.get("task") == "repair"]
    wrong = "not measured"
    if repair:
        chosen = max(repair[0]["arms"])
        wrong = (
            f"of the patches that arm {chosen} offered on the set {repair[0]['set']}, "
            f"{percent(repair[0]['arms'][chosen]['precision'])} pass tests that it never saw"
        )
    filled = facts.of("infill", set="held_out")
    exact = f"{percent(filled['model'])} of single lines are filled exactly" if filled else "not measured"
    context = facts.config.max_position_embeddings
    return f"""## Limitations

The RIA document's own list (9.2), each with what we measured.

- *May introduce subtle bugs.* Yes: {wrong}. Read every patch.
- *Limited by training data.* It knows the releases in THIRD_PARTY.md and nothing later, and little of any other.
- *Context window constraints.* {context:,} tokens; of a function with over 60 lines it is shown a part, of other files
  nothing.
- *No true understanding.* It predicts tokens: {exact}.
- *Security risks.* Not measured. It was trained on code that nobody audited; `riallm fix` runs every candidate in a
  sandbox, and writes nothing until it is told to.
"""
