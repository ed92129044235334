"""The build hook: compile the CPU kernels where torch and a C++ compiler are installed, else install without them."""

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = "src/foveate/kernels/_cpu.so"


class KernelsBuildHook(BuildHookInterface[Any]):
    """Put the compiled kernels into the wheel, which is then for one platform and any Python version."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile in a separate process, so that a failure there does not stop the install."""
        reason = _compile(Path(self.root))
        if reason:
            self.app.display_warning(
                f"Foveate is built without its CPU kernels: {reason}; compile later: python -m foveate.kernels.build"
            )
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["artifacts"].append(LIBRARY)
        build_data |= {"pure_python": False, "tag": f"py3-none-{platform}"}


def _compile(root: Path) -> str | None:
    """Compile the kernels into the source tree; return why that failed."""
    script = (
        f"import sys; sys.path.insert(0, {str(root / 'src')!r}); "
        "from foveate.kernels import build; sys.exit(build.main())"
    )
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    return next(
        (line.removeprefix("Received ") for line in done.stderr.splitlines() if line.startswith("Received ")),
        "they do not compile",
    )
