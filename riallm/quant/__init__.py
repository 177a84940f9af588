"""Weights in few bits: block layouts, packing, and rounding that gradients pass through."""
