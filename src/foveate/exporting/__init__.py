"""Export a model to a file that runs elsewhere, run the file again, and compare it with the model."""
