"""`fit` on two devices by the backend's own data parallelism learns what it learns on one.

The number of devices is set before the backend starts, so each case is a process.
"""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from on_keras.steps import BACKEND

FIT = """
import contextlib, json, sys
import numpy as np
import keras
import foveate.keras as fk

def host():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    y = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="branch")(x)
    x = keras.layers.Add()([x, y])
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))

def devices(count):
    if keras.backend.backend() == "jax":
        found = keras.distribution.list_devices("cpu")
        assert len(found) == 2
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=found[:count]))
        return contextlib.nullcontext(), lambda: {len(v.value.sharding.device_set) for v in model.trainable_variables}
    import tensorflow as tf
    names = ["CPU:0", "CPU:1"]
    if count == 2:
        strategy = tf.distribute.MirroredStrategy(names)
        return strategy.scope(), lambda: {strategy.num_replicas_in_sync}
    return contextlib.nullcontext(), lambda: {1}

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

count = int(sys.argv[1])
scope, used = devices(count)
with scope:
    model = fk.attach(host(), "cbam", "residual", reduction=2, start="paper")
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
draw = np.random.default_rng(0)
x, labels = draw.uniform(0, 1, (32, 16, 16, 3)).astype("float32"), draw.integers(0, 4, 32)
before = [weight.numpy() for weight in model.trainable_weights]
losses = model.fit(x, labels, epochs=3, batch_size=8, shuffle=False, verbose=0).history["loss"]
after = [weight.numpy() for weight in model.trainable_weights]
moved = [float(abs(b - a).max()) for a, b in zip(before, after)]
print(json.dumps({
    "losses": losses, "devices": sorted(used()), "moved": moved,
    "weights": [float(np.square(weight, dtype="float64").sum()) for weight in after],
}))
"""


def fitted(count: int) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", FIT, str(count)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="Keras's torch backend has no data parallelism of its own")
def test_two_devices_learn_what_one_learns() -> None:
    one, two = fitted(1), fitted(2)
    assert (one["devices"], two["devices"]) == ([1], [2])
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
    np.testing.assert_allclose(two["weights"], one["weights"], rtol=1e-5, atol=5e-6)  # TensorFlow's rounding differs
    assert one["losses"][2] < one["losses"][0]
    assert min(two["moved"]) > 0  # the attention too
