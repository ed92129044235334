"""Attaching attention to PyTorch models."""
