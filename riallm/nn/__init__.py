"""Layers without an architecture."""
