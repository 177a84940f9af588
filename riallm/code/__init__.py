"""Programs as data: spans, imports, edits, coverage. Nothing here runs the program."""
