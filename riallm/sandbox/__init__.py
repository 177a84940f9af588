"""Running what is not trusted: one contract, tiers of isolation, limits, a warm worker."""
