"""The compiled library: its path, the command that compiles it, and the oldest torch that loads it."""

from pathlib import Path

FOLDER = Path(__file__).parent
LIBRARY = FOLDER / "_cpu.so"
COMMAND = "python -m foveate.kernels.build"
OLDEST_TORCH = "2.10"
