"""Pictures with boxes: one file for each format."""
