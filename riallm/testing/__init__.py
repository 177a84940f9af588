"""Fakes that ship: what stands in for a model where a test must be exact. Used by our tests and by yours."""
