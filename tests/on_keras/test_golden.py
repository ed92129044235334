from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from foveate.bind.keras.attention import Attention, attention
from foveate.bind.keras.layer_weights import load_state, state
from golden_data import Case, beyond, cases, error, named
from on_keras.steps import BACKEND, precision, step

CASES = cases()
FORMATS = ("channels_last", "channels_first")
FORMS = [("float64", "channels_last"), ("float32", "channels_last"), ("float32", "channels_first")]
pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


def to_format(x: np.ndarray, data_format: str) -> np.ndarray:
    return x.transpose(0, 2, 3, 1) if data_format == "channels_last" and x.ndim == 4 else x


def to_nchw(x: np.ndarray, data_format: str) -> np.ndarray:
    return x.transpose(0, 3, 1, 2) if data_format == "channels_last" and x.ndim == 4 else x


def layer_of(case: Case, dtype: str, data_format: str, start: str = "paper") -> Attention:
    """Return the layer with the golden weights, transferred from the torch module that loads them."""
    module = case.config.module(start=start)
    layer = attention(module.mechanism, start=start, data_format=data_format, dtype=dtype)
    layer.build(*(to_format(case.array(name), data_format).shape for name in case.inputs))
    load_state(layer, {name: value.numpy() for name, value in module.state_dict().items()})
    return layer


def errors(case: Case, layer: Attention, data_format: str) -> Iterator[tuple[str, float]]:
    inputs = [to_format(case.array(name), data_format) for name in case.inputs]
    y, of_inputs, of_weights = step(layer, inputs, to_format(case.array("gy"), data_format), case.training)
    yield "y", error(torch.from_numpy(to_nchw(y, data_format).copy()), case.array("y"))
    for name, gradient in zip(case.inputs, of_inputs, strict=True):
        yield f"g{name}", error(torch.from_numpy(to_nchw(gradient, data_format).copy()), case.array(f"g{name}"))
    yield from named(case, "gw", of_weights)


def places() -> Iterator[tuple[Case, int]]:
    """Yield each case with its place among those of its configuration in the same mode."""
    seen: Counter[tuple[str, bool]] = Counter()
    for case in CASES:
        key = f"{case.config}", case.training
        yield case, seen[key]
        seen[key] += 1


def forms() -> Iterator[Any]:
    """Yield each case in each form; fast is one form of a case, another for the next one of its configuration.

    JAX compiles each case for seconds: there only the first ones of a configuration, in each mode, are fast.
    """
    for case, place in places():
        for form, (dtype, data_format) in enumerate(FORMS):
            stays = (place + case.training + form) % len(FORMS) == 0 and (place == 0 or BACKEND != "jax")
            marks = () if stays else pytest.mark.slow
            yield pytest.param(case, dtype, data_format, marks=marks, id=f"{case}-{dtype}-{data_format}")


@pytest.mark.parametrize(("case", "dtype", "data_format"), list(forms()))
@pytest.mark.reliability(2)
def test_keras_computes_what_the_authors_compute(case: Case, dtype: str, data_format: str) -> None:
    with precision(dtype):
        layer = layer_of(case, dtype, data_format)
        found = dict(errors(case, layer, data_format))
    assert beyond(case, found, getattr(torch, dtype)) == {}


@pytest.mark.parametrize("case", [case for case, place in places() if case.training and place == 0], ids=str)
def test_running_statistics_move_as_keras_moves_them(case: Case) -> None:
    """Keras updates the running variance with the biased batch variance, torch with the unbiased one."""
    layer = layer_of(case, "float32", "channels_last")
    before, biased = state(layer), case.config.module().double()
    for norm in biased.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.register_forward_pre_hook(
                lambda norm, args: seen.append((norm, args[0].detach()))  # pyright: ignore[reportArgumentType]
            )
    seen: list[tuple[torch.nn.BatchNorm2d, torch.Tensor]] = []
    biased.train()(*(torch.from_numpy(case.array(name)) for name in case.inputs))
    step(
        layer,
        [to_format(case.array(name), "channels_last") for name in case.inputs],
        to_format(case.array("gy"), "channels_last"),
        True,
    )
    after = state(layer)
    paths = {module: path for path, module in biased.named_modules()}
    assert bool(seen) == any(name.endswith("running_var") for name in after)
    for norm, x in seen:
        path, momentum = paths[norm], norm.momentum or 0.0
        wanted = (1 - momentum) * before[f"{path}.running_var"] + momentum * x.var((0, 2, 3), correction=0).numpy()
        np.testing.assert_allclose(after[f"{path}.running_var"], wanted, rtol=1e-5)


def test_the_comparator_can_fail() -> None:
    case = next(case for case in CASES if str(case) == "cbam-default-case0")
    layer = layer_of(case, "float32", "channels_last")
    weights = state(layer)
    load_state(layer, {**weights, "spatial.conv.weight": weights["spatial.conv.weight"][:, ::-1]})
    assert dict(errors(case, layer, "channels_last"))["y"] > 1e-3
