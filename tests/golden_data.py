"""The golden data, numbers from the code of the mechanisms' authors, and the comparison with our results."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import foveate
from foveate import kernels
from foveate.bind.published import layouts
from foveate.bind.torch.attention import Attention
from foveate.facts import facts, home
from foveate.mechanisms import built_in, get, names
from foveate.oracle import evaluate
from foveate.surgery.core.published import load_published
from tolerance import GOLDEN, SPREADS, with_roundings

FOLDER = Path(__file__).resolve().parent / "golden"
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Config:
    """One configuration of a golden file, and the mechanism and options of Foveate that it corresponds to."""

    file: str
    id: str
    mechanism: str
    layout: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    no_hidden_unit: bool = False

    def __str__(self) -> str:
        return f"{self.file}-{self.id}"

    @property
    def path(self) -> Path:
        """The file: in tests/golden, or beside the source of a mechanism that is not built in."""
        folder = None if self.mechanism in built_in() else home(get(self.mechanism))
        return (folder or FOLDER) / f"{self.file}.npz"

    @property
    def meta(self) -> dict[str, Any]:
        return next(config for config in described(self.path) if config["id"] == self.id)

    @property
    def channels(self) -> int:
        return next(arrays(self.path)[f"{self.id}/{case['id']}/x"].shape[1] for case in self.meta["cases"])

    def module(self, dtype: torch.dtype = torch.float64, start: Any = "paper") -> Attention:
        """Return the module with the golden weights."""
        module = foveate.attention(self.mechanism, self.channels, start=start, dtype=dtype, **self.options)
        used = load_published(module, {key: torch.from_numpy(value) for key, value in self.tables("sd").items()})
        assert used == self.layout
        return module

    def tables(self, kind: str) -> Arrays:
        return {
            key.partition(f"/{kind}/")[2]: value
            for key, value in arrays(self.path).items()
            if key.startswith(f"{self.id}/{kind}/")
        }

    def theirs(self, key: str, known: Arrays) -> str | None:
        """Return their name for our weight, with any prefix that the reference has."""
        layout = next(layout for layout in layouts(self.mechanism) if layout.name == self.layout)
        name = layout.theirs(key)
        return next(
            (found for found in known if name is not None and (found == name or found.endswith(f".{name}"))), None
        )

    def as_theirs(self, key: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return our value in their order and shape; to swap two maps is its own inverse."""
        layout = next(layout for layout in layouts(self.mechanism) if layout.name == self.layout)
        return layout.ours(key, value).reshape(shape)


@dataclass(frozen=True)
class Case:
    """One input of a configuration, with all results of the reference for it."""

    config: Config
    id: str
    training: bool

    def __str__(self) -> str:
        return f"{self.config}-{self.id}"

    def array(self, name: str) -> np.ndarray:
        return arrays(self.config.path)[f"{self.config.id}/{self.id}/{name}"]

    @property
    def inputs(self) -> list[str]:
        known = arrays(self.config.path)
        return [name for name in ("x", "context", "g") if f"{self.config.id}/{self.id}/{name}" in known]


@cache
def arrays(path: Path) -> Arrays:
    with np.load(path) as content:
        return {key: content[key] for key in content.files}


@cache
def described(path: Path) -> list[dict[str, Any]]:
    return json.loads(arrays(path)["meta"].tobytes())["configs"]


def configs() -> list[Config]:
    return [
        Config(file, id, name, **entry)
        for name in names()
        for file, entries in facts(name).get("golden", {}).items()
        for id, entry in entries.items()
    ]


def cases() -> list[Case]:
    return [
        Case(config, case["id"], case["mode"] == "train")
        for config in configs()
        if not config.no_hidden_unit
        for case in config.meta["cases"]
        if "error" not in case and not case.get("note", "").startswith("non-finite output")
    ]


def disagreements(case: Case, module: Attention, dtype: torch.dtype = torch.float64) -> list[str]:
    """Return the names of outputs, gradients and statistics that differ from the reference, with their errors."""
    return [f"{name}: {error:.1e}" for name, error in beyond(case, dict(errors(case, module, dtype)), dtype).items()]


def beyond(case: Case, found: Mapping[str, float], dtype: torch.dtype) -> dict[str, float]:
    """Return the errors above the tolerance of the dtype.

    More is allowed where the maths magnifies roundings. Found only in gradients behind a norm of two values (global
    context and polarized attention of 2 hidden units, SK and CoT of 2 samples, SCSA of 2 channels in a group): the norm
    of a pair is about (1, -1) whatever its difference, so the gradient is a difference of nearly equal numbers.
    """
    large = {name: error for name, error in found.items() if not error <= GOLDEN[dtype]}
    if not large or dtype == torch.float64:
        return large

    def run() -> dict[str, float]:
        return dict(errors(case, case.config.module(), torch.float64))

    with kernels.using("reference"):  # kernels take no float64
        exact, rounded = run(), with_roundings(run, dtype)
    return {
        name: error
        for name, error in large.items()
        if not error <= SPREADS * max(one[name] - exact[name] for one in rounded)
    }


def errors(case: Case, module: Attention, dtype: torch.dtype) -> Iterator[tuple[str, float]]:
    module.train(case.training)
    inputs = [torch.from_numpy(case.array(name)).to(dtype).requires_grad_() for name in case.inputs]
    y = module(*inputs)
    y.backward(torch.from_numpy(case.array("gy")).to(dtype))
    yield "y", error(y, case.array("y"))
    for name, value in zip(case.inputs, inputs, strict=True):
        yield f"g{name}", error(value.grad, case.array(f"g{name}"))
    yield from named(case, "gw", {key: parameter.grad for key, parameter in module.named_parameters()})
    if case.training:
        yield from named(case, "post", dict(module.named_buffers()))


def named(case: Case, kind: str, ours: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Compare every array of a kind with ours; if ours is missing, the difference is infinite.

    A weight and its bias share one scale, because the gradient of a bias is a sum that may cancel; in front of a batch
    norm it is 0. That of a single number is a sum over the whole map, and is compared on the scale of the input's.
    """
    wanted = case.config.tables(f"{case.id}/{kind}")
    found = {case.config.theirs(key, wanted): (key, value) for key, value in ours.items()}
    for name, want in wanted.items():
        key, value = found.get(name, ("", None))
        got = (
            None
            if value is None
            else case.config.as_theirs(key, np.asarray(torch.as_tensor(value).detach()), want.shape)
        )
        part = name.rpartition(".")[0]
        scales = [array for other, array in wanted.items() if other.rpartition(".")[0] == part]
        scales += [case.array("gx")] if kind == "gw" and want.size == 1 else []
        yield f"{kind}/{name}", error(got, want, greatest(*scales))


def oracle_errors(case: Case) -> Iterator[tuple[str, float]]:
    module = case.config.module()
    weights = {key: value.numpy() for key, value in module.state_dict().items()}
    y, after = evaluate(module.mechanism, weights, *map(case.array, case.inputs), training=case.training)
    yield "y", error(y, case.array("y"))
    if case.training:
        yield from named(case, "post", {key: after[key] for key, _ in module.named_buffers()})


def error(got: Tensor | np.ndarray | None, want: np.ndarray, scale: float | None = None) -> float:
    """Return the largest difference over the scale, which is by default the largest wanted magnitude.

    Ours must be finite everywhere, also where the reference is not, such as its gradient of a root at 0.
    """
    if got is None:
        return float("inf")
    got = np.asarray(got.detach() if isinstance(got, Tensor) else got, np.float64)
    if got.shape != want.shape or not np.isfinite(got).all():
        return float("inf")
    difference = np.abs(got - want)[np.isfinite(want)].max(initial=0)
    return float(difference / (greatest(want) if scale is None else scale))


def greatest(*values: np.ndarray) -> float:
    """Return the largest magnitude, or 1 if all values are 0 but for rounding, as behind a ReLU that is always 0."""
    found = float(max(np.abs(value[np.isfinite(value)]).max(initial=0) for value in values))
    return found if found > 1e-13 else 1.0
