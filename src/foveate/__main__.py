"""`python -m foveate`: the command line, where the folder of its script is not on the PATH."""

from foveate.cli import main

if __name__ == "__main__":
    main()
