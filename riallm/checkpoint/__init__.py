"""How weights lie on the disk."""
