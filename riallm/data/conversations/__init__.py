"""Conversations in English from a table of sentences: what a model with a memory is trained and asked on."""
