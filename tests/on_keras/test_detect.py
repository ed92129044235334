"""A detector trained by Keras's own `fit` has the same batches, loss and detections as in torch."""

from functools import partial
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest
import torch

import foveate.keras as fk
from foveate.data import DigitScenesOptions, open_box_data
from foveate.data.boxes.box_data import BoxData
from foveate.data.boxes.collate import BoxCollate
from foveate.detection.heads import OWN_MASK, Head, decode_all, make_heads
from foveate.errors import UsageError
from foveate.models import YOLOv4Tiny, darknet_arrays, set_darknet_arrays
from foveate.models.detectors import detect as detect_by_torch
from foveate.training.batches import training_loader
from foveate.training.fit_options import FitOptions
from foveate.training.tasks import detect
from models.test_yolov4_tiny import settled
from on_keras.steps import BACKEND, numpy
from on_keras.test_golden import FORMATS

CLASSES, SIZE, BATCH = 10, 64, 8
COMPILED = (
    BACKEND != "torch"
)  # XLA, which TensorFlow uses on CPUs only on request; Keras's torch backend would start a C++ compiler


@pytest.fixture(scope="module")
def data() -> BoxData:
    return open_box_data(None, digits=DigitScenesOptions(canvas=SIZE, train=64, val=20, test=10))


@pytest.fixture(scope="module")
def heads(data: BoxData) -> tuple[Head, ...]:
    return make_heads(data.anchors, OWN_MASK)


def thin(data_format: Any = "channels_last", regularizer: Any = None) -> Any:
    """Return a network of few layers with the two outputs of YOLOv4-tiny."""
    keras.utils.set_random_seed(0)
    form = {"data_format": data_format, "kernel_regularizer": regularizer}
    x = inputs = keras.Input((SIZE, SIZE, 3) if data_format == "channels_last" else (3, SIZE, SIZE))
    outputs = []
    for filters, stride in ((8, 4), (16, 4), (16, 2)):
        x = keras.layers.Conv2D(filters, 5, stride, padding="same", activation="relu", **form)(x)
        outputs.append(keras.layers.Conv2D(3 * (5 + CLASSES), 1, **form)(x))
    return keras.Model(inputs, [outputs[2], outputs[1]])


def detector(model: Any, heads: tuple[Head, ...], jit_compile: Any = "auto", **options: Any) -> Any:
    made = fk.Detector(model, heads, **options)
    made.compile(keras.optimizers.Adam(3e-3), jit_compile=jit_compile)
    return made


def batches(part: Any, heads: tuple[Head, ...], **options: Any) -> fk.BoxBatches:
    return fk.BoxBatches(part, heads, CLASSES, BATCH, **options)


def loss(model: Any, outputs: Any, targets: Any) -> float:
    """Return the loss of outputs, computed without compiling."""
    return float(numpy(model.compute_loss(y=targets, y_pred=outputs)))


@pytest.mark.parametrize("data_format", FORMATS)
def test_three_epochs_lower_the_loss(data: BoxData, heads: tuple[Head, ...], data_format: Any) -> None:
    model = detector(thin(data_format), heads, COMPILED, data_format=data_format)
    held = batches(data.val, heads, shuffle=False, data_format=data_format)
    first = model.evaluate(held, verbose=0)
    history = model.fit(
        batches(data.train, heads, data_format=data_format), epochs=3, validation_data=held, shuffle=False, verbose=0
    ).history
    assert history["loss"][2] < history["loss"][1] < history["loss"][0]
    assert history["val_loss"][2] < 0.8 * first


@pytest.fixture(scope="module")
def host(data: BoxData) -> Any:
    torch.manual_seed(0)
    return settled(YOLOv4Tiny(CLASSES, OWN_MASK, anchors=data.anchors))


@pytest.mark.parametrize("data_format", FORMATS)
def test_the_loss_and_the_boxes_found_are_those_of_torch(data: BoxData, host: Any, data_format: Any) -> None:
    last = data_format == "channels_last"
    network = fk.yolov4_tiny((SIZE, SIZE, 3) if last else (3, SIZE, SIZE), OWN_MASK, CLASSES, data_format=data_format)
    set_darknet_arrays(network, darknet_arrays(host))
    model: Any = fk.Detector(network, host.heads, smoothing=0.1, data_format=data_format)
    batch = BoxCollate(host.heads, CLASSES)([data.val[k] for k in range(BATCH)])
    with torch.no_grad():
        wanted = detect.loss(host, batch, FitOptions(smoothing=0.1)).item()
    images, targets = batches(data.val, host.heads, shuffle=False, data_format=data_format)[0]
    assert loss(model, model.predict(images, verbose=0), targets) == pytest.approx(wanted, rel=1e-4)
    thresholds: Any = {"conf": 0.001, "iou": 0.45, "max_det": 20}
    for ours, theirs in zip(
        model.detect(images, **thresholds), detect_by_torch(host, batch[0], **thresholds), strict=True
    ):
        assert len(theirs.boxes) == 20
        assert np.array_equal(ours.labels, theirs.labels)
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-4)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, rtol=1e-4, atol=1e-2)
    thresholds = {"conf": 0.001, "iou": 0.05, "max_det": 300}  # low thresholds, so that NMS decides
    both = model.detect(images, **thresholds), detect_by_torch(host, batch[0], **thresholds)
    counts = [[len(one.boxes) for one in detections] for detections in both]
    assert counts[0] == counts[1]
    assert max(counts[0]) < 250


@pytest.mark.parametrize("data_format", FORMATS)
def test_the_batches_are_those_of_torch(data: BoxData, heads: tuple[Head, ...], data_format: Any) -> None:
    """Train two epochs in torch, the second without mosaics; the shared data set then has mosaics switched off."""
    begin = partial(detect.begin_epoch, data.train, options=FitOptions(epochs=2, close_mosaic=1))
    loader = training_loader(
        data.train, range(len(data.train)), 24, seed=3, collate=BoxCollate(heads, CLASSES), begin=begin
    )
    ours = fk.BoxBatches(data.train, heads, CLASSES, 24, seed=3, data_format=data_format)
    epochs = []
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        epochs.append(list(loader))
    for epoch, theirs in enumerate(epochs):
        ours.mosaic = epoch == 0
        assert len(ours) == len(theirs) == 2  # 16 of the 64 images are left out
        ours.on_epoch_end()  # Keras calls it before the first epoch too
        ours.on_epoch_begin()
        for (images, targets), (wanted, expected) in zip(ours, theirs, strict=True):
            assert images.dtype == np.float32
            assert np.array_equal(images.transpose(0, 3, 1, 2) if data_format == "channels_last" else images, wanted)
            assert all(np.array_equal(target, other) for target, other in zip(targets, expected, strict=True))
        ours.on_epoch_end()


def test_validation_has_every_picture_once_in_order(data: BoxData, heads: tuple[Head, ...]) -> None:
    held = batches(data.val, heads, shuffle=False)
    images = np.concatenate([images for images, _ in held])
    assert [len(images) for images, _ in held] == [8, 8, 4]
    assert np.array_equal(images.transpose(0, 3, 1, 2), np.stack([image.numpy() for image, *_ in data.val]))
    with pytest.raises(IndexError):
        held[3]


def test_a_fit_goes_through_the_epochs_alike_with_workers_and_when_it_goes_on(
    data: BoxData, heads: tuple[Head, ...]
) -> None:
    source = batches(data.train, heads)
    losses = detector(thin(), heads).fit(source, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert source.epoch == 3
    parts, model, source = [], detector(thin(), heads), batches(data.train, heads, workers=2)
    for first, last in ((0, 2), (2, 3)):
        parts += model.fit(source, initial_epoch=first, epochs=last, shuffle=False, verbose=0).history["loss"]
    assert parts == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("given", ["batches", "array", "few"])
def test_pictures_are_looked_at_batch_by_batch(
    data: BoxData, heads: tuple[Head, ...], monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Outputs of a whole set would fill the memory, and a last batch of another size would be compiled again."""
    model, sizes, decoded = detector(thin(), heads, jit_compile=COMPILED), [], []
    call = model.model.call
    monkeypatch.setattr(model.model, "call", lambda x, **options: sizes.append(x.shape[0]) or call(x, **options))
    watched = "foveate.models.keras_detector.decode_all"
    monkeypatch.setattr(
        watched, lambda xp, outputs, *others: decoded.append(len(outputs[0])) or decode_all(xp, outputs, *others)
    )
    held = batches(data.val, heads, shuffle=False)
    images = np.concatenate([images for images, _ in held])[: 5 if given == "few" else None]
    found = model.detect(held if given == "batches" else images, conf=0.001, max_det=5, batch=BATCH)
    assert decoded == ([5] if given == "few" else [8, 8, 4])
    assert set(sizes) == {5 if given == "few" else 8}
    alone = [model.detect(image[None], conf=0.001, max_det=5)[0].scores for image in images]
    np.testing.assert_allclose([one.scores for one in found], alone, rtol=1e-4)
    assert np.unique(np.round(alone, 4), axis=0).shape == (len(images), 5)


def test_regularisers_are_added(data: BoxData, heads: tuple[Head, ...]) -> None:
    images, targets = batches(data.val, heads, shuffle=False)[0]
    plain, held = (detector(thin(regularizer=penalty), heads) for penalty in (None, keras.regularizers.L2(0.1)))
    penalty = sum(0.1 * float((numpy(layer.kernel.value) ** 2).sum()) for layer in held.model.layers[1:])
    assert penalty > 1
    outputs = plain(images)
    assert loss(held, outputs, targets) - loss(plain, outputs, targets) == pytest.approx(penalty, rel=1e-4)


def test_mixed_precision(data: BoxData, heads: tuple[Head, ...]) -> None:
    images, targets = batches(data.val, heads, shuffle=False)[0]
    plain = detector(thin(), heads)
    exact = loss(plain, plain(images), targets)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = detector(thin(), heads)
        assert keras.backend.standardize_dtype(model(images)[0].dtype) == "bfloat16"
        steps = model.fit(images, targets, epochs=2, batch_size=BATCH, verbose=0).history["loss"]
        assert steps[0] == pytest.approx(exact, rel=0.02)
        assert steps[1] < steps[0]
        assert len(model.detect(images, conf=0.0)) == BATCH
    finally:
        keras.config.set_dtype_policy("float32")


def test_it_is_saved_and_so_is_the_model_inside(data: BoxData, heads: tuple[Head, ...], tmp_path: Path) -> None:
    model = detector(fk.attach(thin(), "se", where="conv2d*", reduction=4), heads, smoothing=0.1)
    model.optimizer.build(model.trainable_variables)  # the first step does the same
    model.save(tmp_path / "detector.keras")
    model.model.save(tmp_path / "model.keras")
    again, inside = (cast(Any, keras.saving.load_model(tmp_path / name)) for name in ("detector.keras", "model.keras"))
    assert isinstance(again, fk.Detector)
    assert isinstance(again.optimizer, keras.optimizers.Adam)
    assert (again.heads, again.smoothing, again.channels_last) == (heads, 0.1, True)
    images = batches(data.val, heads, shuffle=False)[0][0]
    for other in (again, inside):
        for a, b in zip(other(images), model(images), strict=True):
            assert np.array_equal(numpy(a), numpy(b))


@pytest.mark.parametrize(
    "attention",
    [pytest.param(None, marks=pytest.mark.slow if COMPILED else ()), pytest.param("cbam", marks=pytest.mark.slow)],
)
def test_the_network_itself_learns(data: BoxData, heads: tuple[Head, ...], attention: str | None) -> None:
    """The test is slow where XLA compiles, which takes a minute."""
    keras.utils.set_random_seed(0)
    model = detector(fk.yolov4_tiny((SIZE, SIZE, 3), OWN_MASK, CLASSES, attention), heads, COMPILED)
    losses = model.fit(batches(data.train, heads), epochs=3, shuffle=False, verbose=0).history["loss"]
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda data, heads: fk.Detector(thin(), heads[:1]), "1 outputs, one for each head"),
        (lambda data, heads: fk.Detector(keras.Sequential(), heads), "Sequential with 0 outputs"),
        (lambda data, heads: fk.Detector(thin(), heads, data_format=cast(Any, "NCHW")), "data_format"),
        (lambda data, heads: fk.BoxBatches(data.val, heads, CLASSES, 0), "batch"),
        (lambda data, heads: fk.BoxBatches(data.val, heads, CLASSES, seed=-1), "seed"),
        (lambda data, heads: fk.BoxBatches(data.val, heads, CLASSES, data_format=cast(Any, "NCHW")), "data_format"),
        (lambda data, heads: fk.BoxBatches(data.val, heads, 3, shuffle=False)[0], "labels from 0 to 2"),
        (
            lambda data, heads: detector(thin(), heads).detect(fk.BoxBatches(data.val, heads, CLASSES)),
            "shuffled batches",
        ),
        (lambda data, heads: detector(thin(), heads).compute_loss(None, None, [0, 0]), "0 targets"),
        (
            lambda data, heads: detector(thin(), heads).compute_loss(None, (0, 0), [0, 0], sample_weight=1),
            "weights of samples",
        ),
    ],
)
def test_bad_input(data: BoxData, heads: tuple[Head, ...], wrong: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wrong(data, heads)
