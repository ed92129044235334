"""Where a study ran: versions, processor, cores, memory, kernels."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import foveate
from foveate import kernels

_PACKAGES = ("torch", "torchvision", "lightning", "timm", "numpy", "scipy", "scikit-learn", "safetensors")


def describe_environment() -> dict[str, Any]:
    """Return what could change the numbers or the times, without names of people or paths."""
    return {
        "foveate": foveate.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores(),
        "memory": _memory(),
        "gpu": _gpu(),
        "kernels": kernels.description() if "torch" in sys.modules else None,
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float | None:
    """Return the machine's load average over the last minute, None where the system has none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def peak_memory() -> int | None:
    """Return the most bytes of memory that this process has held at once; None where the system does not say."""
    status = Path("/proc/self/status")  # getrusage would count what the process held before it ran this program
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
