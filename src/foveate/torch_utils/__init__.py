"""Utilities for PyTorch modules: modes, a run that changes nothing, what a module costs, and which names are attention's."""
