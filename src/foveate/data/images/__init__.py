"""Photos and drawn pictures with a class each."""
