"""The operations on an NVIDIA GPU, by Triton. Importing this imports no Triton."""
