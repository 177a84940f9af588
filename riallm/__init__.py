"""riallm: reactive code language models, and the repair agent that puts them to work."""

__version__ = "0.1.0"
