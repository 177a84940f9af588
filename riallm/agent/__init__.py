"""What acts: the client to a model, permissions, the audit record, and repair."""
