"""The corpora by name: which packages a code model reads, and which whole packages it is measured on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from riallm.core.errors import UsageError
from riallm.data.corpus.recipe import CorpusRecipe

MANIFESTS = Path(__file__).with_name("manifests")


def python_small() -> CorpusRecipe:
    """Ten small packages, a few megabytes: for trials of everything that reads a corpus."""
    return CorpusRecipe(
        name="python_small",
        packages=(
            "starlette", "parso", "attrs", "boltons", "toolz", "sortedcontainers", "flask", "werkzeug", "jinja2",
            "isort", "flake8",
        ),
        validation=("starlette", "parso"),
        package_bytes=1_000_000,
    )  # fmt: skip


def python_full() -> CorpusRecipe:
    """The standard library and some fifty packages; the densest first, of large ones 9 MB of code and 3 of tests."""
    return CorpusRecipe(
        name="python_full",
        packages=(
            "coverage", "sqlglot", "tornado",
            "cpython", "attrs", "boltons", "toolz", "sortedcontainers", "flask", "werkzeug", "jinja2", "parso", "isort",
            "flake8", "starlette", "fastapi", "pydantic", "pytest", "tox", "black", "jedi", "pygments", "ipython",
            "jupyter-server", "nbconvert", "aiohttp", "celery", "kombu", "scrapy", "rich", "textual", "networkx",
            "dask", "distributed", "xarray", "bokeh", "sphinx", "mypy", "wagtail", "numba", "yt-dlp", "mlflow",
            "keras", "jax", "numpy", "django", "sqlalchemy", "twisted", "scikit-learn", "pandas", "astropy",
            "statsmodels", "scipy", "sympy",
        ),
        validation=("coverage", "sqlglot", "tornado"),
    )  # fmt: skip


CORPORA: dict[str, Callable[[], CorpusRecipe]] = {"python_small": python_small, "python_full": python_full}


def corpus(name: str) -> CorpusRecipe:
    """The corpus of a name; UsageError lists the known ones."""
    if name not in CORPORA:
        raise UsageError(f"no corpus '{name}'; there are {', '.join(CORPORA)}")
    return CORPORA[name]()
