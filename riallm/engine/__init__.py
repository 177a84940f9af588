"""Running a model: shared prefixes, scores of continuations, sampling and beam search."""
