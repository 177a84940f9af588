"""The training corpus: pinned packages in, shards of related files out, and a manifest that says what was left out."""
