"""`foveate.study`, `train` and `explain`: the commands of the same names, as functions that return objects."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike
from torch import nn

from foveate.errors import UsageError, nearest
from foveate.experiment.explaining import IMGSZ, Model, explain_models
from foveate.experiment.options import StudyOptions
from foveate.experiment.progress import Progress
from foveate.experiment.run_folder import LoadedRun, load_run
from foveate.experiment.train_one import train_one
from foveate.files import read_json
from foveate.gates.explanation import Explanation
from foveate.report.page import build_report
from foveate.report.results_table import headings, rows, summary_table
from foveate.studies.run import run_study

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class StudyResult:
    """A finished study: its folder, and `results.json` as `results`."""

    folder: Path
    results: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        return self.results["verdict"]["headline"]

    @property
    def advice(self) -> str:
        """One sentence of advice."""
        return self.results["advice"]

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt the verdict."""
        return list(self.results["warnings"])

    @property
    def table(self) -> str:
        """The arms with their verdicts, scores and costs, as text."""
        return summary_table(self.results)

    @property
    def report(self) -> Path:
        """The report, an HTML page."""
        return self.folder / "report.html"

    def to_frame(self) -> "pandas.DataFrame":
        """Return the table as a DataFrame with one row for each arm; pandas must be installed."""
        import pandas

        plain = ("slug", "label", "mechanism", "where", "start", "verdict", "n_done", "mean", "sd", "could_have_seen")
        records = [
            {name: arm[name] for name in plain}
            | {name: (arm["difference"] or {}).get(name) for name in ("estimate", "low", "high", "p")}
            | {name: (arm["cost"] or {}).get(name) for name in ("parameters", "added_parameters", "macs", "bytes")}
            | {"latency_ratio": ((arm["cost"] or {}).get("latency") or {}).get("ratio")}
            for arm in self.results["arms"]
        ]
        return pandas.DataFrame(records).set_index("slug")

    def __str__(self) -> str:
        return "\n".join([self.verdict, self.advice, *(f"Warning: {one}" for one in self.warnings), "", self.table])

    def _repr_html_(self) -> str:
        from markupsafe import escape

        head = "".join(f"<th>{escape(one)}</th>" for one in headings(self.results).values())
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row.cells()) + "</tr>" for row in rows(self.results)
        )
        paragraphs = "".join(f"<p>{escape(one)}</p>" for one in (self.verdict, self.advice))
        return f"{paragraphs}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def study(
    data: str | os.PathLike[str] | None = None,
    model: str | Callable[..., nn.Module] | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> StudyResult:
    """Train every choice of attention from the same seeds, judge whether it helped, and return the result.

    `data` is a folder of images, "planted:where" and the like, or None for embedded digits. `model` is a name, or a
    function of a `.py` file that builds a network (see `foveate.models.own.build_own`). `options` are those of `foveate
    study`, with underscores (`attention="se,cbam"`, `seeds=5`, `margin=1`, `epochs=10`); `foveate study -h` says what
    each means. `budget` is in seconds. The trials run in separate processes, so a script must call this under `if
    __name__ == "__main__":`.

    Raises:
        UsageError: an option, model, site or mechanism that cannot work.
        DataError: data that cannot be used.
    """
    function = model if callable(model) else None
    asked = _options(data, None if function else model, options)
    folder = run_study(asked, model=function, progress=progress, report=build_report, command="foveate.study(...)")
    if folder is None:
        raise UsageError(
            expected="a study to run",
            received="dry_run=True",
            do="call foveate.studies.run_study with progress for the outline",
        )
    return StudyResult(folder, read_json(folder / "results.json"))


def train(
    data: str | os.PathLike[str] | None = None,
    model: str | None = None,
    *,
    attention: str = "none",
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> LoadedRun:
    """Train one model, with or without attention, save it in a run folder, and return it.

    `options` are those of `foveate train`, with underscores; `foveate train -h` says what each means. Raises the same
    errors as `foveate.study`.
    """
    plain = attention == "none"
    asked = _options(data, model, {**options, "attention": None if plain else attention, "control": False})
    return load_run(train_one(asked, plain=plain, seed=seed, progress=progress))


def explain(
    model: Model | Mapping[str, Model],
    images: Any = None,
    *,
    arms: Sequence[str] | None = None,
    boxes: Sequence[ArrayLike] | None = None,
    classes: Sequence[str] = (),
    imgsz: int = IMGSZ,
    grad_cam: bool | Sequence[str] | None = None,
    batch: int = 16,
    device: str = "cpu",
) -> Explanation:
    """Return where a model looks in images: its attention over them, Grad-CAM beside it, numbers, and dead gates.

    Args:
        model: a model with attention, a run (`load_run`) or its folder, the folder of a study, or several models by
            their labels. They see the images as the first one does. A Keras model takes arrays of its own input, or
            files, as values from 0 to 255.
        images: files, folders, PIL images, arrays uint8 (H, W, 3), or tensors of the model's input (N, C, H, W). None
            takes a few test images of a run, with their true boxes where these are known.
        arms: which arms of a study, by name (`se-identity__residual`) or mechanism (`se`); None takes all.
        boxes: the objects (M, 4) in each image, as x0, y0, x1, y1 in its pixels.
        classes: the names of the classes of a model without a run.
        imgsz: the side in pixels of the input of a model without a run, for images that are not tensors.
        grad_cam: whether to compute Grad-CAM, which needs captum; None does where it is installed. It explains the
            class that a classifier predicts, or the best box of a detector; names of classes explain each of these.
        batch: images at once.
        device: where runs are loaded to.

    Raises:
        UsageError: a model, an arm or an argument that does not fit, or models without attention.
        DataError: an image that cannot be read.
    """
    return explain_models(
        model,
        images,
        arms=arms,
        boxes=boxes,
        classes=classes,
        imgsz=imgsz,
        grad_cam=grad_cam,
        batch=batch,
        device=device,
    )


def _options(
    data: str | os.PathLike[str] | None, model: str | Callable[..., nn.Module] | None, options: Mapping[str, Any]
) -> StudyOptions:
    known = [field.name for field in dataclasses.fields(StudyOptions)]
    if unknown := [name for name in options if name not in known]:
        raise UsageError(
            expected="an option of `foveate study`",
            received=unknown[0],
            do=nearest(unknown[0], known),
        )
    return StudyOptions(**{**options, "data": data, "model": model})
