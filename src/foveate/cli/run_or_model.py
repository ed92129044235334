"""Open what `foveate export` and `foveate bench` are given: the folder of a run, or the name of a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from foveate.experiment.run_folder import LoadedRun


@dataclass(frozen=True)
class Opened:
    """A model in eval mode, what is known of it, the shape of its example, and how an image is prepared for it.

    `run` is the run that trained it; None for a model that was named.
    """

    model: "nn.Module"
    about: Mapping[str, Any]
    example: tuple[int, ...] | None
    prepare: "Callable[[Path], Tensor]"
    run: "LoadedRun | None" = None


def open_run_or_model(source: str, given: Mapping[str, Any], channels: int) -> Opened:
    """Open a run or a model by name; `given` are the options of a model by name, None where not given.

    Raises UsageError, DataError.
    """
    return _run(source, given) if Path(source).is_dir() else _model(source, given, channels)


def refuse_options(source: str, given: Mapping[str, Any], what: str) -> None:
    """Raise UsageError if an option of a model by name is given for a source that is something else, `what`."""
    if wrong := [f"--{key}" for key, value in given.items() if value is not None]:
        raise UsageError(expected=what, received=f"{', '.join(wrong)} for {source}", do="leave them out")


def _run(source: str, given: Mapping[str, Any]) -> Opened:
    from foveate.experiment.model import example_of
    from foveate.experiment.run_folder import load_run
    from foveate.exporting.exported import described

    refuse_options(source, given, "a run as it was trained")
    run = load_run(source)
    return Opened(run.model, described(run), example_of(run.run.data), run.preprocess, run)


def _model(source: str, given: Mapping[str, Any], channels: int) -> Opened:
    import numpy as np

    from foveate.cli.plan import open_host
    from foveate.data.images.decode import read_image
    from foveate.experiment.arms import choose_arms
    from foveate.normalisation import IMAGENET, normalisation_of
    from foveate.surgery import attach

    plain = (given["attention"] or "none") == "none"
    asked = {"attention": "se" if plain else given["attention"], "where": given["where"]}
    options, host, example = open_host(source, asked, imgsz=given["imgsz"], channels=channels, classes=given["classes"])
    for arm in () if plain else [arm for arm in choose_arms(options) if arm.is_attention][:1]:
        attach(host, arm.mechanism, example=example, **arm.arguments)
    count = given["classes"] or (80 if getattr(host, "heads", None) else 1000)
    if given["weights"] is not None:
        options.what.load(host, Path(given["weights"]), [str(number) for number in range(count)])
    about = {"task": options.task, "model": source, "size": example[-1] if example else 224, "kind": "folder"}
    about["normalisation"] = (normalisation_of(host) or IMAGENET).to_dict()

    def prepare(path: Path) -> "Tensor":
        return options.what.prepare(about, np.asarray(read_image(path)))[None]

    return Opened(host.eval(), about, example, prepare)
