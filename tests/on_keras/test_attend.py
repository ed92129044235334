"""Attend in Keras: attached before `compile`, the same run when it continues, the adapter at the end of `fit`."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import foveate.keras as fk
from foveate.errors import DataError, UsageError
from foveate.gates.record_keras import record
from foveate.surgery.keras.host import attached
from on_keras.test_attach import out, small


def ready(model: Any) -> Any:
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    return model


def data() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.normal(size=(4, 8, 8, 3)).astype("float32"), draw.normal(size=(4, 8, 8, 8)).astype("float32")


def fit(model: Any, *callbacks: Any, epochs: int = 1) -> Any:
    return model.fit(*data(), epochs=epochs, batch_size=4, shuffle=False, verbose=0, callbacks=[*callbacks])


def test_a_run_that_continues_is_the_uninterrupted_one(tmp_path: Path) -> None:
    host = small()
    attend = fk.Attend("se", "block1_conv2", reduction=2)
    model = ready(attend.attach(host))
    start = model.get_weights()
    fit(model, attend, epochs=2)
    whole = out(model, data()[0])
    model.set_weights(start)
    fit(ready(model), attend)
    model.save_weights(tmp_path / "half.weights.h5")
    model.save(tmp_path / "half.keras")

    resumed = ready(attend.attach(small()))
    resumed.load_weights(tmp_path / "half.weights.h5")
    loaded: Any = keras.saving.load_model(tmp_path / "half.keras")
    assert attend.attach(loaded) is loaded
    for model in (resumed, loaded):
        fit(model, attend)
        assert list(attached(model)) == ["block1_conv2"]
        np.testing.assert_allclose(out(model, data()[0]), whole, rtol=1e-5, atol=1e-6)


def test_the_adapter_holds_what_fit_has_learned(tmp_path: Path) -> None:
    host = small()
    host.trainable = False
    images = data()[0][:3]
    attend = fk.Attend("cbam", log_gates=images, adapter=tmp_path / "new" / "cbam.safetensors", reduction=2)
    model = ready(attend.attach(host))
    before = out(model, data()[0])
    history = fit(model, attend).history
    with record(model) as maps:
        model(images)
    gates = maps["block1_conv2"]
    assert gates.channel is not None
    assert len([name for name in history if name.startswith("gates/")]) == 2 * 2 * 3
    np.testing.assert_allclose(history["gates/block1_conv2/channel/mean"], [gates.channel.mean()], rtol=1e-5)
    np.testing.assert_allclose(
        history["gates/block1_conv2/channel/between_images"], [gates.channel.std(0).mean()], rtol=1e-4, atol=1e-7
    )
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cbam.safetensors"]
    again = fk.load_adapter(host, tmp_path / "new" / "cbam.safetensors")
    assert not np.array_equal(out(model, data()[0]), before)
    np.testing.assert_allclose(out(again, data()[0]), out(model, data()[0]), rtol=1e-6)


def test_what_cannot_work_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    attend = fk.Attend("cbam", adapter=tmp_path / "file" / "cbam.safetensors", reduction=2)
    model = small()
    with pytest.raises(UsageError, match=r"attend\.attach\(model\) before"):
        fit(ready(model), attend)
    new = ready(attend.attach(model))
    before = out(new, data()[0])
    with pytest.raises(DataError, match="a path that can be written"):
        fit(new, attend)
    np.testing.assert_array_equal(out(new, data()[0]), before)
