"""One file a command; each parses, builds and calls, and holds no logic of its own."""
