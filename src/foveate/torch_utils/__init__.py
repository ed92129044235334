"""Utilities for PyTorch modules: training modes, side-effect-free runs, cost counting, and names of attention."""
