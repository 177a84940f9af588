"""The sets of the repair evaluation: injected, smoke, benchmarks and upstream bugs, and folders of one's own."""
