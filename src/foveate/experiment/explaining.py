"""Explain models: which models and images are meant, and the maps of each model over them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from foveate.checks import check_least
from foveate.data.images.datasets import image_input
from foveate.errors import UsageError, nearest
from foveate.experiment.arms import labels
from foveate.experiment.explaining_cam import cam_classes, checked
from foveate.experiment.run_folder import LoadedRun, load_run
from foveate.experiment.sources import listed, name_of, pixels_of
from foveate.files import read_json
from foveate.gates.explanation import Explanation, unseen
from foveate.gates.maps import capture
from foveate.normalisation import IMAGENET, Normalisation, normalisation_of
from foveate.surgery.core.transfer import is_keras

Model: TypeAlias = nn.Module | LoadedRun | str | os.PathLike[str]
IMGSZ = 224
_NO_CAM = 'Grad-CAM is left out: pip install "foveate[explain]"'


@dataclass(frozen=True)
class SeenImage:
    """An image as the model sees it: uint8 (H, W, 3) and the input (C, H, W), with its name.

    Where boxes are known, `boxes` (M, 4) are those in the input, and `within` (4,) is what is not its border.
    """

    name: str
    pixels: NDArray[np.uint8]
    tensor: Tensor
    boxes: NDArray | None = None
    within: NDArray | None = None


def explain_models(
    model: Model | Mapping[str, Model],
    images: Any,
    *,
    arms: Sequence[str] | None,
    boxes: Sequence[ArrayLike] | None,
    classes: Sequence[str],
    imgsz: int,
    grad_cam: bool | Sequence[str] | None,
    batch: int,
    device: str,
) -> Explanation:
    """Return the explanation that `foveate.explain` describes."""
    check_least("imgsz", imgsz, 1)
    check_least("batch", batch, 1)
    if any(map(is_keras, model.values() if isinstance(model, Mapping) else [model])):
        from foveate.experiment.explaining_keras import explain_keras

        own: Any = {"boxes": boxes, "classes": classes, "imgsz": imgsz, "grad_cam": grad_cam, "batch": batch}
        return explain_keras(model, images, **own)
    found = _models(model, arms, device)
    first = next(iter(found.values()))
    of_classes = cam_classes(grad_cam, first.classes if isinstance(first, LoadedRun) else classes)
    cam = _has_captum() if of_classes is None else of_classes
    notes = [one for label, of in found.items() for one in unseen(label, _attention_in(of))]
    notes += [] if cam or grad_cam is False else [_NO_CAM]
    if images is None:
        if not isinstance(first, LoadedRun):
            raise UsageError(
                expected="images to explain",
                received="none, and a model without a run",
                do="pass files, a folder, arrays, PIL images or a tensor",
            )
        data = first.run.open_data("test" if first.run.split else None)
        every = {
            label: one.run.options.what.maps(one.model, data, cam)
            for label, one in found.items()
            if isinstance(one, LoadedRun)
        }
        count = len(next(iter(every.values()))["images"])
        names = [f"test image {k}" for k in range(1, count + 1)]
        return checked(Explanation(names, every, first.classes, notes), cam, grad_cam)
    if isinstance(first, LoadedRun):
        classes = first.classes
    elif not isinstance(images, Tensor) and normalisation_of(first) is None:
        notes.append("The model has no normalisation, so images are normalised by ImageNet's.")
    seen = list(_seen_images(first, images, boxes, imgsz))
    every = {
        label: capture(
            of.model if isinstance(of, LoadedRun) else of,
            np.stack([one.pixels for one in seen]),
            torch.stack([one.tensor for one in seen]),
            boxes=None if boxes is None else [one.boxes for one in seen],  # pyright: ignore[reportArgumentType]
            within=None if boxes is None else [one.within for one in seen],  # pyright: ignore[reportArgumentType]
            batch=batch,
            cam=cam,
        )
        for label, of in found.items()
    }
    return checked(Explanation([one.name for one in seen], every, classes, notes), cam, grad_cam)


def _models(
    model: Model | Mapping[str, Model], arms: Sequence[str] | None, device: str
) -> dict[str, nn.Module | LoadedRun]:
    """Return the models by their labels. Raises UsageError and DataError as `load_run` does, and for unknown arms."""
    if isinstance(model, Mapping):
        given = {str(label): _model(one, device) for label, one in model.items()}
        if not given:
            raise UsageError(expected="at least one model", received="none", do="pass a model or a run")
        return _chosen(given, {label: label for label in given}, arms)
    if isinstance(model, str | os.PathLike) and (Path(model) / "study.json").is_file():
        return _arms_of_study(Path(model), arms, device)
    one = _model(model, device)
    label = labels([one.run.arm])[one.run.arm.slug] if isinstance(one, LoadedRun) else _mechanisms_in(one)
    return _chosen({label: one}, {label: label}, arms)


def _model(model: Model, device: str) -> nn.Module | LoadedRun:
    if isinstance(model, str | os.PathLike):
        return load_run(model, device=device)
    if isinstance(model, nn.Module | LoadedRun):
        return model
    raise UsageError(
        expected="a torch.nn.Module, a Keras model, a loaded run or the folder of a run",
        received=f"a {type(model).__name__}",
        do="pass one of these",
    )


def _arms_of_study(folder: Path, arms: Sequence[str] | None, device: str) -> dict[str, nn.Module | LoadedRun]:
    """Return the first finished trial of each arm of a study."""
    outline = read_json(folder / "study.json", "run the study again")["outline"]["arms"]
    trials: dict[str, Path] = {}
    for slug in (arm["slug"] for arm in outline):
        places = sorted(folder.glob(f"trials/{slug}__seed*/weights/best.safetensors"), key=_seed_of)
        if places:
            trials[slug] = places[0].parent.parent
    names = {arm["slug"]: str(arm["label"]) for arm in outline if arm["slug"] in trials}
    if not trials:
        raise UsageError(
            expected="a study with a finished trial", received=f"{folder} without one", do="finish it with --resume"
        )
    chosen = _chosen(trials, names, arms)
    return {names[slug]: load_run(path, device=device) for slug, path in chosen.items()}


def _seed_of(weights: Path) -> int:
    return int(weights.parent.parent.name.rpartition("__seed")[2])


def _chosen(found: Mapping[str, Any], names: Mapping[str, str], arms: Sequence[str] | None) -> dict[str, Any]:
    """Return the arms asked for, by their name, their label, or the mechanism's name before the first hyphen."""
    if arms is None:
        return dict(found)
    chosen: dict[str, Any] = {}
    for asked in arms:
        same = [name for name in found if asked in (name, names[name], name.partition("__")[0], name.partition("-")[0])]
        if not same:
            raise UsageError(expected="arms of it", received=repr(asked), do=nearest(asked, found))
        chosen |= {name: found[name] for name in same}
    return chosen


def _mechanisms_in(model: nn.Module) -> str:
    return ", ".join(dict.fromkeys(type(one).__name__ for one in _attention_in(model))) or "model"


def _attention_in(model: nn.Module | LoadedRun) -> list[Any]:
    """Return the mechanisms of a model's attention."""
    network = model.model if isinstance(model, LoadedRun) else model
    return [module.mechanism for module in network.modules() if hasattr(module, "mechanism")]


def _seen_images(
    model: nn.Module | LoadedRun, images: Any, boxes: Sequence[ArrayLike] | None, imgsz: int
) -> Iterator[SeenImage]:
    """Yield the images as the model sees them. Raises DataError for an unreadable file."""
    for k, image in enumerate(listed(images, boxes)):
        own = None if boxes is None else np.asarray(boxes[k], float).reshape(-1, 4)
        yield _seen_image(model, image, name_of(image, k), own, imgsz)


def _seen_image(model: nn.Module | LoadedRun, image: Any, name: str, boxes: NDArray | None, imgsz: int) -> SeenImage:
    if isinstance(image, Tensor):
        normalisation = model.run.normalisation if isinstance(model, LoadedRun) else normalisation_of(model)
        within = np.array([0, 0, image.shape[-1], image.shape[-2]], float)
        return SeenImage(name, _seen(image, normalisation), image, boxes, within)
    run = model.run if isinstance(model, LoadedRun) else None
    pixels, size = pixels_of(image, run.data["size"] if run else imgsz, run.greys if run else None)
    if isinstance(model, LoadedRun):
        tensor, normalisation = model.preprocess(pixels)[0].cpu(), model.run.normalisation
        described, place = model.run.data, model.run.options.what.placed
    else:
        from foveate.training.tasks.classify import placed as place

        normalisation = normalisation_of(model) or IMAGENET
        tensor = torch.from_numpy(image_input(pixels, imgsz, normalisation))
        described = {"kind": "folder", "size": imgsz}
    seen = SeenImage(name, _seen(tensor, normalisation), tensor)
    if boxes is None:
        return seen
    within = place(described, np.array([[0, 0, *size]]), size)[0]
    return replace(seen, boxes=place(described, boxes, size), within=within)


def _seen(tensor: Tensor, normalisation: Normalisation | None) -> NDArray[np.uint8]:
    """Return a model's input (C, H, W) as pixels; without a known normalisation, from its lowest to its highest."""
    x = tensor.detach().float().cpu()
    if normalisation is not None and len(normalisation.mean) == len(x):
        mean, deviation = (torch.tensor(one)[:, None, None] for one in (normalisation.mean, normalisation.deviation))
        x = x * deviation + mean
    else:
        x = (x - x.min()) / (x.max() - x.min()).clamp_min(1e-12)
    x = x[:3] if len(x) >= 3 else x[:1].expand(3, -1, -1)
    return (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _has_captum() -> bool:
    try:
        import captum  # noqa: F401
    except ImportError:
        return False
    return True
