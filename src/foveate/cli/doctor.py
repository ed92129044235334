"""`foveate doctor`: what is installed, what runs, and why something does not."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate import __version__
from foveate.cli import console, flags
from foveate.data.images.cache_place import ROOM, copies_folder, kept
from foveate.errors import FoveateError, UsageError
from foveate.experiment.environment import describe_environment
from foveate.storage import checked_place

# litert has an environment of its own
EXTRAS = (
    *("torch", "study", "pretrained", "detect", "explain", "ray", "s3", "keras"),
    *("onnx", "openvino", "int8", "transformers", "hub"),
)
KERNELS = "Foveate's own kernels"
CHANNELS = 256  # which every mechanism takes with its default options


def doctor(
    nodes: Annotated[
        bool, typer.Option("--nodes", help="Examine the nodes of a Ray cluster, before a study on it.")
    ] = False,
    address: flags.Address = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="With --nodes: the data of that study.", metavar="FOLDER", show_default=False),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="With --nodes: its first weights.", metavar="FILE", show_default=False),
    ] = None,
    results: flags.Results = None,
    json: flags.Json = False,
    debug: flags.Debug = False,
) -> int:
    """Show what is installed, which accelerations are active, and why others are not."""
    if nodes:
        return _show_nodes(address, [place for place in (data, weights) if place], results, json)
    asked = {"address": address, "data": data, "weights": weights, "results": results}
    if given := [name for name, value in asked.items() if value]:
        raise UsageError(expected=f"--{given[0]} with --nodes", received=f"--{given[0]} alone", do="add --nodes")
    report = examine()
    if json:
        console.say_json(report)
        return 0
    machine = report["machine"]
    console.say(f"foveate {report['foveate']}, Python {report['python']}, {machine['system']}", "bold")
    console.say_prose(
        f"{machine['processor']}, {machine['cores']} cores available, torch threads: {machine['threads'] or 'none'}"
    )
    console.say()
    console.say_table(
        ("Package", "Version", "State"),
        [(one["name"], one["version"] or "–", one["note"]) for one in report["packages"]],
        left=3,
    )
    console.say()
    console.say_table(
        ("Acceleration", "Active", "Why"),
        [(one["name"], "yes" if one["active"] else "no", one["why"]) for one in report["accelerations"]],
        left=3,
    )
    console.say()
    for line in _sentences(report["forms"]):
        console.say_prose(line)
    console.say()
    if report["kernels"]:
        console.say_table(
            ("Mechanism", "Runs with", "Why"),
            [(name, "plain operations" if why else "kernel", why or "") for name, why in report["kernels"].items()],
            left=3,
        )
        console.say()
    cache = report["cache"]
    console.say_prose(
        f"Decoded images that --cache disk keeps: {cache['images']:,} in {cache['folder']}, "
        f"{cache['bytes'] / 2**30:.2f} of {cache['limit'] / 2**30:g} GiB (--cache-size sets another limit)"
    )
    console.say()
    if report["fixes"]:
        console.say("To install what is missing:", "bold")
        for fix in report["fixes"]:
            console.say(f"  {fix}")
    else:
        console.say("Nothing is missing.", "bold green")
    return 0


def _show_nodes(address: str | None, places: list[Path], results: str | None, json: bool) -> int:
    """Print what each node has, and return 1 if a study could not use all of them."""
    from foveate.report import format as fmt
    from foveate.studies.nodes import examine_nodes

    if absent := [place for place in places if not place.exists()]:
        raise UsageError(expected=f"a file or folder at {absent[0]}", received="nothing", do="check the path")
    report = examine_nodes(address, places, results and checked_place(results))
    stopped = any(node["problems"] for node in report["nodes"])
    if json:
        console.say_json(report)
        return int(stopped)
    rows = []
    for node in report["nodes"]:
        absent = [Path(place).name for place, digest in node.get("places", {}).items() if digest is None]
        state = "; ".join(node["problems"]) or "fine" + f", {', '.join(absent)} will be shipped" * bool(absent)
        sizes = [fmt.size(node.get(name)) for name in ("memory", "free")]
        rows.append([node["node"], str(node.get("cores", "–")), *sizes, node.get("gpu") or "–", state])
    console.say_table(("Node", "Cores", "Memory", "Free disk", "GPU", "State"), rows, left=1)
    if len(report["processors"]) > 1:
        console.say_prose(
            f"The processors are of several makes ({', '.join(report['processors'])}): scores may differ in the last "
            "digits from node to node."
        )
    return int(stopped)


def examine() -> dict[str, Any]:
    """Return the state of the environment, ready for JSON; never raises, whatever is missing or broken."""
    required = {extra: _required(extra) for extra in EXTRAS}
    needed = {name: (extra, least) for extra, brought in reversed(required.items()) for name, least in brought.items()}
    packages = {name: _package(name, extra, least) for name, (extra, least) in sorted(needed.items())}
    if packages.get("keras", {}).get("ok"):
        packages["keras"] |= _keras_backend()
    torch, broken = _import_torch()
    if broken and "torch" in packages:
        packages["torch"] |= {"ok": False, "note": broken}
    guard = _torchvision() if torch and packages.get("torchvision", {}).get("version") else None
    if guard is not None:
        packages["torchvision"] |= {"ok": guard["active"] is not None, "note": guard["why"]}
    lacking = {one["extra"] for one in packages.values() if not one["version"] or one["old"]}
    covered = {extra for extra in lacking if any(required[extra].keys() < required[other].keys() for other in lacking)}
    wanted = [extra for extra in EXTRAS if extra in lacking - covered]
    upgrade = "--upgrade " * any(one["old"] for one in packages.values())
    fixes = [f'pip install {upgrade}"foveate[{",".join(wanted)}]"'] if wanted else []
    if broken:
        fixes.append("pip install --force-reinstall torch")
    if not packages:
        fixes.append('pip install "foveate[study]"')
    accelerations, kernels, forms = _accelerations(torch), {}, {"running": None, "missing": []}
    if torch:
        forms = _forms(torch)
        own, kernels, fix = _kernels(torch)
        accelerations.insert(0, own)
        fixes += fix
    return {
        "schema": 1,
        "foveate": __version__,
        "python": platform.python_version(),
        "machine": _machine(torch),
        "packages": [*packages.values()],
        "torchvision_guard": guard,
        "accelerations": accelerations,
        "forms": forms,
        "kernels": kernels,
        "cache": _cache(),
        "fixes": fixes,
    }


def _required(extra: str) -> dict[str, str]:
    """Return the packages of an extra with their minimum versions, from the installed metadata."""
    try:
        lines = importlib.metadata.requires("foveate") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    pattern = rf"([\w.-]+)(?:>=([\d.]+))?.*extra == ['\"]{extra}['\"]"
    found = {match[1]: match[2] or "0" for line in lines if (match := re.match(pattern, line))}
    return {name: least for name, least in found.items() if name != "foveate"}


def _package(name: str, extra: str, least: str) -> dict[str, Any]:
    version = _version(name)
    old = version is not None and _numbers(version) < _numbers(least)
    missing = f'missing: pip install "foveate[{extra}]"'
    note = missing if version is None else f"older than {least}: pip install --upgrade {name}" if old else "fine"
    return {
        "name": name,
        "version": version,
        "extra": extra,
        "ok": version is not None and not old,
        "old": old,
        "note": note,
    }


def _numbers(version: str) -> list[int]:
    """Return the release of a version as numbers, without zeros at its end: 2.10.0+cpu is [2, 10]."""
    match = re.match(r"[\d.]+", version)
    numbers = [int(part or 0) for part in match[0].split(".")] if match else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def _keras_backend() -> dict[str, Any]:
    """Return Keras's backend and its state; like Keras, read KERAS_BACKEND, else Keras's settings file."""
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    try:
        chosen = json.loads((home / "keras.json").read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, LookupError, TypeError):
        chosen = "tensorflow"
    backend = os.environ.get("KERAS_BACKEND") or str(chosen)
    if backend.isidentifier() and importlib.util.find_spec(backend):
        return {"note": f"fine, on {backend}"}
    return {
        "ok": False,
        "note": f"its backend {backend} is missing: install it, or set KERAS_BACKEND to tensorflow, jax or torch",
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_torch() -> tuple[Any, str | None]:
    if _version("torch") is None:
        return None, None
    try:
        import torch
    except Exception as error:
        return None, f"does not import: {type(error).__name__}: {error}"
    return torch, None


def _torchvision() -> dict[str, Any]:
    """Return whether the guard replaces torchvision's compiled operators; `active` is None if torchvision fails."""
    from foveate.models.torchvision_guard import ensure_torchvision, operators_load

    try:
        ensure_torchvision()
    except FoveateError as error:
        return {"active": None, "why": f"{error.received}; {error.do}"}
    if operators_load():
        return {"active": False, "why": "fine, with its compiled operators"}
    return {
        "active": True,
        "why": "models and transforms work; the guard replaces compiled operators, which do not load with this torch",
    }


def _machine(torch: Any) -> dict[str, Any]:
    found = describe_environment()
    return {
        **{key: found[key] for key in ("system", "processor", "cores", "memory")},
        "capability": torch.backends.cpu.get_cpu_capability() if torch else None,
        "threads": torch.get_num_threads() if torch else None,
    }


def _cache() -> dict[str, Any]:
    """Return where decoded images are kept, how many and how many bytes there are, and the usual limit."""
    images, size = kept()
    return {"folder": str(copies_folder()), "images": images, "bytes": size, "limit": int(2**30 * ROOM["disk"])}


def _kernels(torch: Any) -> tuple[dict[str, Any], dict[str, str | None], list[str]]:
    """Return the state of Foveate's own kernels, the reason why each mechanism runs without one, and the fixes."""
    from foveate import kernels
    from foveate.bind.torch.attention import attention
    from foveate.kernels import chosen, ops
    from foveate.kernels.library import COMMAND
    from foveate.mechanisms import names

    x = torch.zeros(1, CHANNELS, 8, 8)
    try:
        reasons = {name: kernels.why_not(attention(name, CHANNELS).eval(), x) for name in names()}
    except FoveateError as error:
        return _one(KERNELS, False, f"Expected {error.expected}, received {error.received}"), {}, []
    state = f"FOVEATE_KERNELS={chosen.choice}" if chosen.choice else "they run wherever they can"
    if chosen.choice == "off":
        return _one(KERNELS, False, state), reasons, []
    if absent := kernels.unavailable():
        fix = COMMAND if _compiler() else f"install g++ (Debian: apt-get install g++), then {COMMAND}"
        return _one(KERNELS, False, absent), reasons, [fix]
    return _one(KERNELS, None in reasons.values(), f"compiled, for {ops.instruction_set()}; {state}"), reasons, []


def _forms(torch: Any) -> dict[str, Any]:
    """Return the form of the kernels that runs, and the faster ones that do not, ready for JSON."""
    from foveate.kernels import fastest

    return {
        "running": fastest.running(),
        "missing": [one._asdict() for one in fastest.missing(gpu=torch.cuda.is_available())],
    }


def _sentences(forms: dict[str, Any]) -> list[str]:
    """Say which form of the kernels runs, and what each missing one would bring."""
    runs = f"The kernels run with {forms['running']}." if forms["running"] else "No kernel runs on the CPU."
    return [
        runs,
        *(
            f"They do not run {'on a GPU' if one['form'] == 'gpu' else 'with ' + one['form']}: {one['why']}. "
            f"{one['brings']}".rstrip()
            for one in forms["missing"]
        ),
    ]


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


def _one(name: str, active: bool, why: str) -> dict[str, Any]:
    return {"name": name, "active": active, "why": why}


def _accelerations(torch: Any) -> list[dict[str, Any]]:
    if torch is None:
        return [_one(KERNELS, False, "they need torch")]
    found = []
    capability = torch.backends.cpu.get_cpu_capability()
    vectors = capability != "DEFAULT"
    found.append(
        _one(
            "CPU vectors",
            vectors,
            f"torch uses {capability}" if vectors else "torch found no vector unit that it knows",
        )
    )
    onednn = torch.backends.mkldnn.is_available()
    found.append(_one("oneDNN", onednn, "built into this torch" if onednn else "this torch was built without it"))
    compiler = _compiler()
    found.append(
        _one(
            "torch.compile",
            bool(compiler),
            f"compiles with {compiler}" if compiler else "it needs a C++ compiler: install g++",
        )
    )
    if torch.cuda.is_available():
        return [*found, _one("GPU", True, torch.cuda.get_device_name())]
    built = torch.version.cuda or torch.version.hip
    reason = f"torch is built for {built} but sees no device" if built else f"torch {torch.__version__} is a CPU build"
    if sys.platform == "darwin" and torch.backends.mps.is_available():
        return [*found, _one("GPU", True, "Apple Metal")]
    return [*found, _one("GPU", False, reason)]
