"""Gates of Keras models are recorded on every backend, and nothing is left behind."""

import importlib
from typing import Any

import keras
import numpy as np
import pytest
import torch

import foveate
import foveate.keras as fk
from foveate import oracle
from foveate.bind.keras.parts import Gate
from foveate.errors import UsageError
from foveate.gates.kinds import PAIRS
from foveate.surgery.core.transfer import transfer_weights
from on_keras.steps import numpy
from representatives import REPRESENTATIVES

BACKEND = keras.backend.backend()
FORMATS = {"channels_last": (2, 6, 5, 16), "channels_first": (2, 16, 6, 5)}
PAIRWISE = {"criss_cross": ("query", "key"), "danet": ("query", "key"), "global_context": ("mask",)}
SIDES = {"channel": (1, 1), "spatial": (6, 5), "row": (6, 1), "column": (1, 5), "full": (6, 5)}


def network() -> Any:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="one")(inputs)
    x = keras.layers.Conv2D(8, 3, padding="same", name="two")(x)
    host = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    return fk.attach(host, "cbam", ["one", "two"], reduction=4, start="paper")


def attributes(layer: Any) -> dict[int, set[str]]:
    return {id(one): {*vars(one)} for one in layer._flatten_layers(include_self=True, recursive=True)}


def drawn(data_format: str) -> np.ndarray:
    return np.random.default_rng(0).normal(size=FORMATS[data_format]).astype("float32")


def first(x: Any, data_format: str) -> np.ndarray:
    return numpy(x).transpose(0, 3, 1, 2) if data_format == "channels_last" else numpy(x)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_captured_gates_are_the_recomputed_ones(name: str, data_format: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = fk.attention(name, data_format=data_format), drawn(data_format)
    layer(x)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(scale=0.5, size=weight.shape) ** 2 for weight in layer.get_weights()])
    seen = []
    spied = Gate.call

    def spy(gate: Gate, x: Any, logits: Any) -> Any:
        y = spied(gate, x, logits)
        seen.append((gate, first(x, data_format), first(logits, data_format), first(y, data_format)))
        return y

    monkeypatch.setattr(Gate, "call", spy)
    with fk.record(layer) as maps:
        layer(x)
    gates = [recorded for recorded in maps.gates if recorded.kind not in PAIRS]
    assert len(gates) == len(seen)
    for recorded, (gate, into, logits, out) in zip(gates, seen, strict=True):
        expected = gate.scale * (gate.offset + oracle.ACTIVATIONS[gate.activation](logits))
        assert recorded.kind == gate.kind
        np.testing.assert_allclose(recorded.gate.reshape(expected.shape), expected, atol=1e-6)
        np.testing.assert_allclose(into * expected, out, atol=1e-5)
        assert len(recorded.gate) == 2
        assert recorded.gate.shape[2:] == SIDES[recorded.kind]
        assert recorded.size == (6, 5)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("name", PAIRWISE)
def test_attention_between_positions_is_recorded(name: str, data_format: Any) -> None:
    options: Any = {"reduction": 8} if name == "global_context" else {}
    layer = fk.attention(name, data_format=data_format, **options)
    x = drawn(data_format)
    layer(x)
    with fk.record(layer) as maps:
        layer(x)
    weights = [first_weights(getattr(layer, part)) for part in PAIRWISE[name]]
    made = [np.einsum("dc,nchw->ndhw", w, first(x, data_format)) + b[:, None, None] for w, b in weights]
    ops: Any = oracle.NumpyOps()
    one_hot = np.broadcast_to(np.eye(30).reshape(1, 30, 6, 5), (2, 30, 6, 5))
    shares = {
        "criss_cross": lambda: ops.criss_cross(*made, one_hot),
        "danet": lambda: ops.attend(*made, one_hot, 1.0),
        "global_context": lambda: 30 * ops.attention_pool(one_hot, *made),
    }[name]()
    (recorded,) = maps.gates
    np.testing.assert_allclose(recorded.gate.reshape(2, 30), shares.sum((2, 3)), atol=1e-4)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("name", ["danet", "non_local", "scsa", "cot", "cot, grouped"])
def test_other_attention_is_recorded_as_in_torch(name: str, data_format: Any) -> None:
    options: Any = {
        "danet": {"pairs": "channels"},
        "non_local": {"similarity": "dot", "pool": "none", "norm": False},
        "scsa": {"heads": 4, "window": 2},
        "cot, grouped": {"grouped": True},
    }
    layer = fk.attention(name.partition(",")[0], data_format=data_format, **options.get(name, {}))
    x = drawn(data_format)
    layer(x)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(scale=0.5, size=weight.shape) ** 2 for weight in layer.get_weights()])
    other = foveate.attention(layer.mechanism, 16).eval()
    transfer_weights(layer, other)
    with fk.record(layer) as found, foveate.record(other) as expected:
        layer(x, training=False)
        other(torch.from_numpy(first(x, data_format)))
    pairs = [[gate for gate in maps.gates if gate.kind in PAIRS] for maps in (found, expected)]
    assert [(gate.kind, gate.size) for gate in pairs[0]] == [(gate.kind, gate.size) for gate in pairs[1]] != []
    for one, same in zip(*pairs, strict=True):
        np.testing.assert_allclose(one.gate, np.asarray(same.gate), rtol=1e-3, atol=1e-3)


def first_weights(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    kernel, bias = layer.get_weights()
    return kernel.reshape(kernel.shape[-2:]).T, bias


def test_predict_runs_eagerly_inside_the_block_only() -> None:
    model, x = network(), np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype("float32")
    expected, compiled = model.predict(x, batch_size=4, verbose=0), model.predict_function
    before = attributes(model)
    with fk.record(model) as maps:
        found = model.predict(x, batch_size=4, verbose=0)
        assert model.run_eagerly
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert list(maps) == ["one", "two"]
    assert [gate.kind for gate in maps.gates] == ["channel", "spatial"] * 4
    assert [len(gate.gate) for gate in maps["one"].gates] == [4, 4, 1, 1]
    assert maps.gates[0].name.startswith("one_foveate_attention/")
    assert (model.run_eagerly, model.predict_function, attributes(model)) == (False, compiled, before)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-6)
    assert len(maps.gates) == 8


def test_nothing_is_left_after_an_error_and_recordings_nest() -> None:
    model, x = network(), np.zeros((1, 8, 8, 3), "float32")
    before = attributes(model)
    with fk.record(model, ["spatial"]) as outer:
        with fk.record(model) as inner:
            model(x)
        model(x)
    with pytest.raises(KeyboardInterrupt), fk.record(model):
        raise KeyboardInterrupt
    assert (len(inner.gates), len(outer.gates)) == (4, 4)
    with pytest.raises(UsageError, match="at most 0 MiB"), fk.record(model, max_bytes=100):
        model(x)
    assert attributes(model) == before


def test_what_cannot_be_recorded_is_refused() -> None:
    model, x = network(), np.zeros((1, 8, 8, 3), "float32")
    with pytest.raises(UsageError, match="'channel', 'spatial'"), fk.record(model, ["spatail"]):  # pyright: ignore[reportArgumentType]
        pass
    with pytest.raises(UsageError, match="a Keras model or layer"), fk.record("model"):
        pass
    with fk.record(model) as maps:  # shapes may be inferred inside the block
        keras.Model(model.inputs, model(model.inputs[0]))
    assert maps.gates == []
    if BACKEND != "torch":
        library = importlib.import_module(BACKEND)
        own = library.jit(model) if BACKEND == "jax" else library.function(model, autograph=False)
        with pytest.raises(UsageError, match="compiled or traced"), fk.record(model):
            own(x)
