"""Measuring: a task is samples, a way to solve them and a score with its uncertainty."""
