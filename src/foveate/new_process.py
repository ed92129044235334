"""Start Python in a new process that imports what this one imports."""

import json
import sys

_BEGIN = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "


def python_command(code: str, *arguments: str) -> list[str]:
    """Return the command of a Python that runs the code with the path of this one.

    Without -P, a file in the current folder would take the place of a module of the same name, such as json.py.
    """
    return [sys.executable, "-P", "-c", _BEGIN + code, json.dumps(sys.path), *arguments]
