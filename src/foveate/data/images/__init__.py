"""Images with one class each: photos and generated pictures."""
