"""The presets find the sites that docs/how-to/sites.md lists for the Keras networks of public libraries."""

import importlib
from typing import Any

import keras
import numpy as np
import pytest

import foveate.keras as fk
from foveate.errors import UsageError
from on_keras.steps import BACKEND, forward
from surgery.site_tables import table

FAST = {"yolov5n", "MobileNetV2"}
pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


def built(section: str, name: str) -> Any:
    if section == "Keras applications":
        return getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=5)
    pytest.importorskip("kyolo")
    family = importlib.import_module(f"kyolo.models.{name[:-1]}")
    return getattr(family, name)(nc=2, input_shape=(64, 64, 3))


NETWORKS = [
    pytest.param(section, name, marks=() if name in FAST else pytest.mark.slow)
    for section in ("kyolo", "Keras applications")
    for name in table(section)
]


@pytest.mark.parametrize(("section", "name"), NETWORKS)
def test_the_presets_find_what_the_page_lists(section: str, name: str) -> None:
    model = built(section, name)
    for preset, patterns in table(section)[name].items():
        if patterns:
            found, by_hand = (
                [site.name for site in fk.plan(model, "eca", where).sites] for where in (preset, patterns)
            )
            assert found == by_hand, preset
        else:
            with pytest.raises(UsageError, match="where='stage'"):
                fk.plan(model, "eca", preset)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX compiles the network twice, which takes ten seconds")
def test_attached_detectors_compute_the_same() -> None:
    detector = built("kyolo", "yolov5n")
    joined = keras.layers.Concatenate(axis=1)([keras.layers.Flatten()(y) for y in detector.outputs])
    model = keras.Model(detector.inputs[0], joined)
    x = np.random.default_rng(0).random((1, 64, 64, 3), dtype=np.float32)
    before = forward(model)(x)
    attached = fk.attach(model, "se", "stage")
    np.testing.assert_array_equal(forward(attached)(x), before)
