"""Recipes: functions that return frozen configurations, found by name."""
