"""Images with one class each: of a folder, and generated."""
