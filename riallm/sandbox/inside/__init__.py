"""The warm worker: runs inside the sandbox, in the user's interpreter, and checks an edit in milliseconds.

Standard library only, Python 3.9 on. `sandbox/warm.py` joins these files into one text and hands that over, so
nothing of ours is installed or importable beside the user's packages. Requests and replies are JSON lines on the
first two descriptors, which nothing below inherits.

    stem    imports the test framework and, later, everything outside the project
     |- hot     forked once: has collected the tests, so the project is imported
     |   `- leaf   forked for each edit: swaps the code objects that the edit changes, runs tests, dies
     `- leaf    for edits of what runs at import: collects again, with the edited file on disk

A verdict counts only when the leaf says it after the last test: `os._exit(0)` in a test is a crash, not a pass.
A leaf dies when it executes more lines of the watched files than it may (a loop without end), or by the clock.
"""
