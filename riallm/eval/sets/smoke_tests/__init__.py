"""Tests of a few standard-library modules, written for the smoke set. They are copied beside a copy of the module.

Two files a module: `check_NAME.py` is what a repair sees, `more_NAME.py` judges its fix.
"""
