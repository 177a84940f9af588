"""riallm: reactive code language models, and the repair agent that puts them to work."""

__version__ = "0.1.0"

NAMES = {
    "AutoModel": "riallm.engine.auto",
    "Generation": "riallm.engine.auto",
    "ModelOptions": "riallm.engine.auto",
}
"""What may be had from here, and where it is; imported when it is asked for, since it needs the extra `models`."""


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in NAMES:
        return getattr(import_module(NAMES[name]), name)
    raise AttributeError(f"module 'riallm' has no attribute {name!r}; there are {', '.join(NAMES)}")
