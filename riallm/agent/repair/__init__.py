"""From a red test to a verified patch: discover, localise, propose, rank, validate."""
