"""Compare every Keras layer with a hand-written block and with another package's layer, on Keras's backend."""

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

import foveate.keras as fk
from benchmarks.harness import check_clock, make_record, measure_calls
from benchmarks.keras_blocks import BLOCKS, eca_kernel, share_weights
from benchmarks.keras_calls import BACKEND, call, first
from benchmarks.options import MECHANISMS, Options, Shape
from foveate.experiment.environment import cores, load_average

BASELINE = "by hand"
SHAPES = ((8, 56, 56, 64), (8, 28, 28, 256), (8, 14, 14, 1024), (1, 28, 28, 256))  # (N, H, W, C)
MOST_POSITIONS = 28 * 28  # the largest map for cross attention, whose time grows with the square of the positions
TOLERANCE = 1e-4  # relative to the largest value

# The package, and its layer on x, with the package's defaults but our reduction and kernel sizes.
PEERS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "se": ("keras_cv", lambda layers, x: layers.SqueezeAndExcite2D(x.shape[-1], x.shape[-1] // 16)(x)),
    "eca": ("k3_addons", lambda layers, x: layers.ECAAttention(eca_kernel(x.shape[-1]))(x)),
    "channel": ("k3_addons", lambda layers, x: x * layers.ChannelAttention2D()(x)),
    "spatial": ("k3_addons", lambda layers, x: x * layers.SpatialAttention2D()(x)),
    "cbam": ("k3_addons", lambda layers, x: layers.CBAM(kernel_size=7)(x)),
}


def measure(options: Options, *, shapes: tuple[Shape, ...] = SHAPES) -> Iterator[dict[str, Any]]:
    """Yield one record: float32 times of the block, our layer and the other layer by measure, mechanism and shape."""
    check_clock(options.clock)
    before = load_average()
    mechanisms = tuple(BLOCKS) if options.mechanisms == MECHANISMS else options.mechanisms
    results = [
        _cell(shape, mechanism, kind, options)
        for kind in options.measures
        for mechanism in mechanisms
        for shape in shapes
        if mechanism != "cross" or shape[1] * shape[2] <= MOST_POSITIONS
    ]
    record = make_record(f"keras_{BACKEND}", options.rounds, before, results)
    record["clock"] = options.clock
    record["packages"] = dict(_versions())
    if BACKEND != "torch":
        record["provenance"] |= {"threads": cores(), "kernels": f"none for {BACKEND}"}
    yield record


def _cell(shape: Shape, mechanism: str, measure: str, options: Options) -> dict[str, Any]:
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).standard_normal(shape, "float32")
    models, failed = _models(mechanism, shape)
    calls = {name: call(model, x, measure) for name, model in models.items()}
    expected, ours = first(calls[BASELINE]()), first(calls["foveate"]())
    # Layers with other results are not timed.
    np.testing.assert_allclose(
        ours, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max(), err_msg=f"{mechanism} {measure}"
    )
    timings = measure_calls(calls, BASELINE, options.rounds, clock=options.clock)
    shown = "  ".join(f"{name} {timing['ratio']:.2f}" for name, timing in timings.items() if name != BASELINE)
    print(f"{BACKEND} {measure} {shape} {mechanism}: {timings[BASELINE]['ms']:.2f} ms  {shown}", flush=True)
    return {"shape": list(shape), "mechanism": mechanism, "measure": measure, "calls": timings, "failed": failed}


def _models(mechanism: str, shape: Shape) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the models to time, and the reasons why others could not be built."""

    def model(attend: Callable[[Any], Any]) -> Any:
        inputs = keras.Input(shape[1:])
        return keras.Model(inputs, attend(inputs))

    models, failed = {BASELINE: model(BLOCKS[mechanism]), "foveate": model(fk.attention(mechanism))}, {}
    share_weights(models["foveate"], models[BASELINE])
    if mechanism in PEERS:
        package, attend = PEERS[mechanism]
        try:
            layers = importlib.import_module(f"{package}.layers")
            models[package] = model(lambda x: attend(layers, x))
        except ModuleNotFoundError as error:
            failed[package] = f"{error}"
    return models, failed


def _versions() -> Iterator[tuple[str, str]]:
    """Yield each package that computes, with its version."""
    for name in ("keras", BACKEND):
        yield name, importlib.import_module(name).__version__
    for name in sorted({package for package, _ in PEERS.values()}):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
