"""Attaching attention to Keras models."""
