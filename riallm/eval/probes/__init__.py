"""Questions to a model's insides: what a part of it carries, beside controls."""
