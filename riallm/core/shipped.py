"""Models that come with the project, by name; any other is given by its folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from riallm.core.errors import UsageError

DEFAULT = "ria-nano"
NGRAM = "ngram"
"""The name under which the project's own n-gram model ranks alone."""
NEEDS = ("safetensors", "tokenizers", "torch")
"""What a model needs that the core does not: the extra `models`."""
PACKAGE = Path(__file__).parents[1]


def home() -> Path:
    """Where the models lie: inside the installed package, or beside it in a checkout."""
    inside = PACKAGE / "weights"
    return inside if inside.is_dir() else PACKAGE.parent / "weights"


def names(folder: Path | None = None) -> list[str]:
    """Names of the models that are there, in a folder or at home."""
    return sorted(path.parent.name for path in (folder or home()).glob("*/config.json"))


def folder_of(model: str) -> Path:
    """The folder of a model by name or path. Raises UsageError for one that is neither."""
    for folder in (home() / model, Path(model)):
        if (folder / "config.json").is_file():
            return folder
    known = ", ".join(names()) or "none"
    raise UsageError(f"--model {model}: no such model, and no folder with a config.json. Shipped models: {known}")


def default() -> str:
    """What ranks and proposes where nobody says: the model that comes with us, where what it needs is installed."""
    there = all(find_spec(name) for name in NEEDS) and DEFAULT in names()
    return DEFAULT if there else NGRAM
