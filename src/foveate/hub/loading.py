"""Load a shared repository: the model of a run, or attention and weights for a host that the caller has."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, overload

from torch import nn

from foveate import plain_yaml
from foveate.errors import DataError, HostMovedWarning, UsageError, shortened
from foveate.experiment.run_code import named_code
from foveate.experiment.run_folder import LoadedRun, load_run
from foveate.files import read_json
from foveate.hub import keras_weights
from foveate.hub.repository import ADAPTER, KERAS_WEIGHTS, RUN, RUN_WEIGHTS, WEIGHTS, find
from foveate.surgery import detach, load_adapter
from foveate.surgery.core.transfer import is_keras
from foveate.torch_utils.names import unwrapped

ANSWER = "build that network yourself and pass it: from_pretrained(source, host)"


@overload
def from_pretrained(
    source: str | os.PathLike[str], host: None = None, *, revision: str | None = None, device: str = "cpu"
) -> LoadedRun: ...
@overload
def from_pretrained(
    source: str | os.PathLike[str],
    host: Any,
    *,
    revision: str | None = None,
    sites: Mapping[str, str] | None = None,
    example: Any = None,
) -> Any: ...
def from_pretrained(
    source: str | os.PathLike[str],
    host: Any = None,
    *,
    revision: str | None = None,
    sites: Mapping[str, str] | None = None,
    example: Any = None,
    device: str = "cpu",
) -> Any:
    """Load a repository that `save_pretrained` or `push_to_hub` made. Nothing in it is run.

    Args:
        source: its folder, or the name of a repository of the Hub, "owner/name", which is then downloaded.
        host: the network to attach the attention to, in place; its weights become those of the repository, if it holds
            the whole model. For a Keras model, a new one is returned, with the same layers. None builds the network of
            a run.
        revision: a branch, tag or commit of the repository; the commit's full hash always gives the same files.
        sites: as in `foveate.load_adapter`.
        example: as in `foveate.load_adapter`.
        device: for the model of a run.

    Returns:
        Without a host, the model of the run with its classes and preprocessing, as `foveate.load_run`. With a host, the
        model with attention.

    Raises:
        UsageError: it is no repository of Foveate; it needs a host, or a class that is not imported; or the host does
            not fit, and is then unchanged.
        DataError: it cannot be read, or is damaged.
    """
    folder = find(os.fspath(source), revision)
    if host is None:
        return _run(folder, device)
    if is_keras(host):
        return _into_keras(folder, host, sites, example)
    return _into(folder, host, sites, example)


def _run(folder: Path, device: str) -> LoadedRun:
    """Load the model of a run, unless its records name code of its own."""
    if not all((folder / name).is_file() for name in RUN):
        received = f"{folder}, which holds attention for a host of yours"
        raise UsageError(expected="a repository of a run", received=received, do=ANSWER)
    if own := _own_code(folder):
        raise UsageError(
            expected="a run of code that Foveate, timm or torchvision has, since nothing in a repository is run",
            received=f"one that needs {shortened(own)}",
            do=ANSWER,
        )
    return load_run(folder, device=device)


def _own_code(folder: Path) -> list[str]:
    """Return the names of code in the records of a run, without importing any."""
    try:
        args = plain_yaml.load((folder / "args.yaml").read_bytes())
        return named_code(args, read_json(folder / "results.json")["arm"])
    except Exception as error:  # damaged records raise nearly anything
        received = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise DataError(
            expected=f"the records of a run in {folder}", received=received, do="download it again"
        ) from None


def _into(folder: Path, host: nn.Module, sites: Mapping[str, str] | None, example: Any) -> nn.Module:
    weights = next((folder / name for name in (WEIGHTS, RUN_WEIGHTS) if (folder / name).is_file()), None)
    added: list[str] = []
    if (folder / ADAPTER).is_file():
        with warnings.catch_warnings():
            if weights is not None:  # the host's own weights come next
                warnings.simplefilter("ignore", HostMovedWarning)
            plan = load_adapter(host, folder / ADAPTER, sites=sites, example=example)
        added = [site.name for site in plan.sites]
    if weights is not None:
        try:
            _load(host, weights)
        except BaseException:
            if added:
                detach(host, added)
            raise
    return host


def _load(model: nn.Module, path: Path) -> None:
    """Load all weights, or none. Raises UsageError for those of another model, DataError for a damaged file."""
    from safetensors.torch import load

    try:
        state = load(path.read_bytes())
    except Exception as error:  # damaged content raises nearly anything
        received = f"{path}: {type(error).__name__}: {str(error)[:200]}"
        raise DataError(expected="a safetensors file", received=received, do="download it again") from None
    model = unwrapped(model)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    found = {name: value.shape for name, value in state.items()}
    if odd := [name for name in {**shapes, **found} if shapes.get(name) != found.get(name)]:
        raise UsageError(
            expected=f"a host with the weights of {path}",
            received=f"a {type(model).__name__} in which these are other or missing: {shortened(odd)}",
            do="build the same network, for as many classes",
        )
    model.load_state_dict(state, strict=True)


def _into_keras(folder: Path, host: Any, sites: Mapping[str, str] | None, example: Any) -> Any:
    from foveate.surgery.keras.attaching import load_adapter as load_into_keras

    if not (folder / ADAPTER).is_file():
        received = f"{folder}, which holds weights of PyTorch only"
        raise UsageError(expected="a repository with an adapter", received=received, do="load it in PyTorch")
    weights = folder / KERAS_WEIGHTS
    with warnings.catch_warnings():
        if weights.is_file():  # the host's own weights come next
            warnings.simplefilter("ignore", HostMovedWarning)
        model = load_into_keras(host, folder / ADAPTER, sites=sites, example=example)
    if weights.is_file():
        keras_weights.load(model, weights)
    return model
