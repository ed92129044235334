"""Cluttered digits, drawn from scikit-learn's."""
