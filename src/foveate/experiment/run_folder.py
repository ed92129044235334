"""The folder of a run: make a new one without touching another run, and load the model that was trained there."""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load as read_tensors
from torch import Tensor, nn

import foveate
from foveate import files, plain_yaml
from foveate.data import AnyData, Split
from foveate.data.images.decode import Greys, read_image, to_rgb
from foveate.errors import DataError, UsageError, counted
from foveate.experiment.arms import Arm, choose_arms, control_widths
from foveate.experiment.data import open_study_data
from foveate.experiment.entries import own_names
from foveate.experiment.environment import describe_environment
from foveate.experiment.first_weights import code_digests
from foveate.experiment.model import attach_arm, build_host, example_of
from foveate.experiment.options import PLACES, Resolved, StudyOptions, located, without_folders
from foveate.experiment.run_code import check_code, named_code
from foveate.files import read_json
from foveate.normalisation import Normalisation
from foveate.training import pick_device

logger = logging.getLogger("foveate")

# They do not change what is learnt.
_INCIDENTAL = ("project", "name", "exist_ok", "resume", "workers", "device", "cache", "cache_size")
_CONTENT = {
    "fingerprint": "the data's content",
    "weights_sha256": "the content of --weights",
    "model_sha256": "the content of the model's file",
    "attention_sha256": "the content of the files of own mechanisms",
    "anchors": "the anchors",  # those of --weights are in a file beside it
    "foveate": "foveate",
}
RECORDS = ("args.yaml", "env.json", "data.json")  # each training and study writes them at its beginning
BEST = Path("weights") / "best.safetensors"
ADAPTER = Path("weights") / "adapter.safetensors"
CHECKPOINT = Path("weights") / "last.ckpt"  # exists until the run is finished


@dataclass(frozen=True)
class TrainedRun:
    """A trained model on disk: all that is needed to build it again and to prepare images for it."""

    folder: Path
    options: Resolved
    arm: Arm
    seed: int
    data: Mapping[str, Any]
    sha256: str | None

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the outputs."""
        return list(map(str, self.data["classes"]))

    @property
    def split(self) -> Split | None:
        """Which images were in which split in the training; None for generated images.

        Raises DataError for damage.
        """
        record = self.data.get("split")
        return None if record is None else Split.from_dict(record)

    @property
    def normalisation(self) -> Normalisation:
        """How images are normalised for the model.

        Raises DataError for damage.
        """
        return Normalisation.from_dict(self.data.get("normalisation"), "data.json")

    @property
    def greys(self) -> Greys | None:
        """The values of 16-bit grey images that become 0 and 255; None if the training had no such images."""
        record = self.data.get("greys")
        return None if record is None else (int(record[0]), int(record[1]))

    def open_data(self, measured: str | None = None) -> AnyData:
        """Open the data of the training, with its splits and its preparation; `measured` is that of `open_data`.

        Raises DataError for data that are gone or damaged.
        """
        options = replace(self.options, imgsz=self.data["size"])
        return open_study_data(options, self.split, measured, self.normalisation, self.greys)

    def trained_on(self, folder: Path) -> bool:
        """Return whether the model was trained on the data in this folder."""
        return self.options.data is not None and folder.resolve() == self.options.data.resolve()


def check_name(name: str | None) -> None:
    """Raise UsageError for a `--name` that is a path."""
    if name and (Path(name).name != name or name in (".", "..")):
        raise UsageError(
            expected="--name as the name of a folder",
            received=repr(name),
            do="leave the folders out: --project sets them",
        )


def new_folder(project: Path, verb: str, name: str, exist_ok: bool) -> Path:
    """Make and return `<project>/<verb>/<name>`, or `<name>-2`, ... when that exists.

    Raises UsageError for a name that is a path.
    """
    check_name(name)
    return free_folder(project / verb, name, exist_ok).resolve()


def free_folder(parent: Path, name: str, exist_ok: bool = False) -> Path:
    """Make and return `<parent>/<name>`, or `<name>-2`, ... when that exists.

    Raises UsageError.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1_000_000):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(exist_ok=exist_ok)
        except FileExistsError:
            continue
        return folder
    raise UsageError(
        expected="a free folder name",
        received=f"{parent / name} and all numbered ones exist already",
        do="choose another --name",
    )


def begin(folder: Path, args: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Write the records of options, machine and data; args.yaml last, as it makes the run resumable."""
    for stale in ("results.json", CHECKPOINT, ADAPTER, "args.yaml"):  # of an earlier run of that name
        (folder / stale).unlink(missing_ok=True)
    files.write_json(folder / "env.json", describe_environment())
    files.write_json(folder / "data.json", data)
    write_yaml(folder / "args.yaml", located(args))


def finished(folder: Path) -> bool:
    """Return whether a run is finished."""
    return (folder / "results.json").is_file()


def begun_folder(project: Path, verb: str, name: str, args: Mapping[str, Any], data: Mapping[str, Any]) -> Path:
    """Return the folder of a run that began with the same options, data, first weights and version.

    Of `<name>`, `<name>-2`, ... it is the newest one that is not finished, else the newest finished one.

    Raises:
        UsageError: there is none; the message says what differs.
        DataError: the records of a possible run are damaged.
    """
    numbers = numbered(project / verb, name)
    begun = sorted(
        (folder for folder in numbers if (folder / "args.yaml").is_file()),
        key=lambda folder: (finished(folder), -numbers[folder]),
    )
    if not begun:
        expected = f"a run to resume at {project / verb / name}"
        raise UsageError(expected=expected, received="none", do="leave --resume out, or give its --name")
    differing: list[list[str]] = []
    for folder in begun:
        differing.append(_changes(folder, args, data))
        if not differing[-1]:
            return folder.resolve()
    do = "repeat the first command with --resume on the same data, or leave --resume out to begin a new run"
    expected = f"the options, data and version that {begun[0]} began with"
    raise UsageError(expected=expected, received="; ".join(differing[0]), do=do)


def numbered(parent: Path, name: str) -> dict[Path, int]:
    """Return the folders `<name>`, `<name>-2`, ... in a place, each with its number."""
    tails = ((path, path.name.removeprefix(name)) for path in parent.glob("*") if path.name.startswith(name))
    return {path: int(tail[1:] or 1) for path, tail in tails if not tail or (tail[0] == "-" and tail[1:].isdecimal())}


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Write options as `--config` reads them; the file is complete or absent."""
    files.write_bytes(path, plain_yaml.dump(_plain(values)).encode())


def read_run(folder: Path) -> TrainedRun:
    """Read the records of the model of a `foveate train` run or of a trial of a study.

    Raises:
        UsageError: the folder is neither, the run is not finished, or it names code in the folder.
        DataError: its records are damaged.
    """
    if (folder / "results.json").is_file() and (folder / BEST).is_file():
        return _read(folder, folder, "results.json")
    if (folder / "trial.json").is_file() and (folder / BEST).is_file():
        return _read(folder, folder.resolve().parent.parent, "trial.json")
    trials = sorted(path.parent.parent for path in folder.glob(f"trials/*/{BEST}"))
    if not trials and all((folder / name).is_file() for name in RECORDS) and not finished(folder):
        do = "repeat the command that began it, with --resume"
        raise UsageError(
            expected="the folder of a trained model", received=f"{folder}, a run that is not finished", do=do
        )
    raise UsageError(
        expected=f"the folder of a trained model, with {BEST} in it",
        received=f"{folder}, a study of {counted(len(trials), 'trial')}"
        if trials
        else f"{folder}, {'a folder without' if folder.is_dir() else 'no folder'}",
        do=f"name one trial: --run {trials[0]}" if trials else "foveate train writes one under runs/train",
    )


def load_model(trained: TrainedRun, device: str = "cpu") -> nn.Module:
    """Build the model again with its weights, in eval mode.

    Raises DataError for weights that are not the run's.
    """
    path = trained.folder / BEST
    content = path.read_bytes()
    if trained.sha256 is not None and hashlib.sha256(content).hexdigest() != trained.sha256:
        raise DataError(
            expected=f"in {path} the weights that the run wrote",
            received="other content: its sha256 differs",
            do="train again",
        )
    _check_own_code(trained)
    example = example_of(trained.data)
    model = build_host(trained.options, trained.data, trained.seed, blank=True)
    widths = control_widths(model, choose_arms(trained.options), example) if trained.arm.mechanism == "control" else {}
    attach_arm(model, trained.arm, trained.seed, example, widths)
    try:
        model.load_state_dict(read_tensors(content), strict=True)
    except Exception as error:  # damaged content raises nearly anything
        received = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise DataError(
            expected=f"in {path} weights of {trained.options.model}", received=received, do="train again"
        ) from None
    return model.eval().to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@dataclass(frozen=True)
class LoadedRun:
    """A trained model with its classes and its preprocessing.

    `model` is in eval mode; `run` says how it was trained.
    """

    model: nn.Module
    run: TrainedRun

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the outputs."""
        return self.run.classes

    def preprocess(self, image: str | os.PathLike[str] | Image.Image | NDArray[np.uint8]) -> Tensor:
        """Return an image as the model's input (1, C, S, S), prepared as its training images were.

        `image` is a file, a PIL image, or an RGB array, uint8 (H, W, 3). Raises DataError for a file that is not a
        readable image.
        """
        if isinstance(image, str | os.PathLike):
            pixels = read_image(Path(image), greys=self.run.greys)
        else:
            pixels = np.array(to_rgb(image, self.run.greys) if isinstance(image, Image.Image) else image, np.uint8)
        device = next(self.model.parameters()).device
        return self.run.options.what.prepare(self.run.data, pixels)[None].to(device)


def load_run(folder: str | os.PathLike[str], *, device: str = "cpu") -> LoadedRun:
    """Load the model of a run folder, of `foveate train` or of a trial of a study, from the files of the folder.

    Code of your own that the run was trained with runs from where it was then. No code in the folder runs.

    Raises:
        UsageError: the folder holds no finished run or names code in itself, or there is no such device.
        DataError: its records or weights are damaged.
    """
    run = read_run(Path(folder))
    return LoadedRun(load_model(run, pick_device(device)), run)


def _check_own_code(trained: TrainedRun) -> None:
    """Check that the code of the user's own model and mechanisms has not changed, and log that it runs.

    Raises DataError.
    """
    then, now = trained.data, code_digests(trained.options)
    own = {"model": [trained.options.model], "attention": own_names(trained.options.attention)}
    for what, names in own.items():
        if (digest := now[f"{what}_sha256"]) is None:
            continue
        shown = ", ".join(names)
        if digest != then.get(f"{what}_sha256"):
            raise DataError(
                expected=f"in {shown} the code that the run was trained with",
                received="other content: its sha256 differs",
                do="restore the file, or train again",
            )
        logger.info("The code of %s runs now, unchanged since the training.", shown)


def _changes(folder: Path, args: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """Return how a run that has begun differs from the present options and data."""
    do = f"move {folder} away, or leave --resume out to begin a new run"
    before = {**read_json(folder / "data.json", do), "foveate": read_json(folder / "env.json", do).get("foveate")}
    try:
        then = dict(plain_yaml.load((folder / "args.yaml").read_bytes()))
    except Exception as error:  # damaged YAML raises nearly anything
        received = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise DataError(expected=f"a readable record at {folder / 'args.yaml'}", received=received, do=do) from None
    now = plain_yaml.load(plain_yaml.dump(_plain(args)))
    then, now = without_folders(then), without_folders(now)
    asked = [key for key in {**then, **now} if key not in (*_INCIDENTAL, *PLACES) and then.get(key) != now.get(key)]
    today = {**json.loads(json.dumps(data)), "foveate": foveate.__version__}
    content = [key for key in _CONTENT if before.get(key) != today.get(key)]
    return [f"{key}: {then.get(key)!r} -> {now.get(key)!r}" for key in asked] + [
        f"{_CONTENT[key]}: {before.get(key)} -> {today.get(key)}" for key in content
    ]


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _read(folder: Path, home: Path, record: str) -> TrainedRun:
    result, data = read_json(folder / record, "train again"), read_json(home / "data.json", "train again")
    with _readable(home):
        values = plain_yaml.load((home / "args.yaml").read_bytes())
        slug = result["arm"]
        code = named_code(values, slug)
    check_code(home, code)
    with _readable(home):
        known = {field.name for field in fields(StudyOptions)}
        asked = {name: value for name, value in values.items() if name in known and value is not None}
        options = StudyOptions.from_dict(asked).resolve()
        arm = Arm(**slug) if isinstance(slug, dict) else next(arm for arm in choose_arms(options) if arm.slug == slug)
        return TrainedRun(folder, options, arm, int(result["seed"]), data, result.get("sha256"))


@contextlib.contextmanager
def _readable(home: Path) -> Iterator[None]:
    """Raise DataError for records that were edited or damaged."""
    try:
        yield
    except Exception as error:
        received = f"{type(error).__name__}: {error}"
        raise DataError(
            expected=f"the records of a trained model in {home}", received=received, do="train again"
        ) from None
