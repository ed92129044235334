"""Seeing what attention does: record the gates that ran, measure where they look, draw them over the picture."""
