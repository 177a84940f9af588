"""Making and describing data: bug injection, upstream bugs. Never needs a model."""
