"""Data generated from scikit-learn's digits: cluttered digits, and digit scenes with boxes."""
