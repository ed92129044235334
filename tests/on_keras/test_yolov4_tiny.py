"""YOLOv4-tiny in Keras computes the same as in torch, with the same weights and the same attention."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

import foveate
import foveate.keras as fk
from foveate.errors import DataError, UsageError
from foveate.models import YOLOv4Tiny, darknet_arrays, load_darknet, save_darknet, set_darknet_arrays
from foveate.surgery.keras.host import attached
from models.test_yolov4_tiny import WRONG_MASKS, settled
from on_keras.steps import BACKEND, numpy
from on_keras.test_golden import FORMATS, to_format, to_nchw
from on_keras.test_transfer_weights import drawn
from representatives import REPRESENTATIVES

MASK = ((3, 4, 5), (1, 2, 3))
SITES = {f"sites.{site}": f"sites_{site}" for site in ("feat1", "feat2", "up")}
pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


def network(classes: int = 4, size: int | None = 64, data_format: Any = "channels_last", **options: Any) -> Any:
    shape = (size, size, 3) if data_format == "channels_last" else (3, size, size)
    return fk.yolov4_tiny(shape, MASK, classes, data_format=data_format, **options)


def picture(size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).random((2, 3, size, size), "float32")


def outputs(model: Any, x: np.ndarray, data_format: str = "channels_last") -> list[np.ndarray]:
    """Return the outputs (N, C, H, W) of a model of either framework."""
    if isinstance(model, YOLOv4Tiny):
        with torch.no_grad():
            return [output.numpy() for output in model(torch.from_numpy(x))]
    return [
        to_nchw(numpy(output), data_format)
        for output in model(np.ascontiguousarray(to_format(x, data_format)), training=False)
    ]


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def host() -> Any:
    torch.manual_seed(0)
    return settled(YOLOv4Tiny(4))


@pytest.fixture(scope="module")
def hosts(host: Any) -> dict[str, Any]:
    """Return a Keras model of each format with the host's weights, to attach to."""
    models = {data_format: network(data_format=data_format) for data_format in FORMATS}
    for model in models.values():
        set_darknet_arrays(model, darknet_arrays(host))
    return models


@pytest.mark.parametrize("data_format", FORMATS)
def test_torch_and_keras_agree(host: Any, hosts: dict[str, Any], data_format: str) -> None:
    assert difference(outputs(hosts[data_format], picture(), data_format), outputs(host, picture())) < 1e-4


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_they_agree_with_attention(host: Any, hosts: dict[str, Any], name: str, data_format: str) -> None:
    foveate.attach(host, name, "sites.*", start="paper", example=(1, 3, 64, 64))
    try:
        for site in SITES:
            drawn(host.get_submodule(site).foveate_attention)
        model = fk.attach(hosts[data_format], name, "sites_*", start="paper")
        foveate.transfer_weights(host, model, sites=SITES)
        assert difference(outputs(model, picture(), data_format), outputs(host, picture())) < 1e-4
    finally:
        foveate.detach(host)


def test_a_mistake_is_seen(host: Any) -> None:
    model, arrays = network(), darknet_arrays(host)
    arrays["csp3.first"]["kernel"] = arrays["csp3.first"]["kernel"].swapaxes(2, 3)
    set_darknet_arrays(model, arrays)
    assert difference(outputs(model, picture()), outputs(host, picture())) > 1e-4


@pytest.mark.parametrize(("name", "data_format"), list(zip(REPRESENTATIVES, itertools.cycle(FORMATS))))
def test_the_identity_start_changes_nothing(hosts: dict[str, Any], name: str, data_format: str) -> None:
    plain = outputs(hosts[data_format], picture(), data_format)
    attentive = outputs(fk.attach(hosts[data_format], name, "sites_*"), picture(), data_format)
    assert all(np.array_equal(a, b) for a, b in zip(attentive, plain, strict=True))


@pytest.mark.parametrize(("phi", "name"), list(enumerate([None, "SE", "CBAM", "ECA", "CoordinateAttention"])))
def test_phi(phi: int, name: str | None) -> None:
    found = {site: (type(layer).__name__, layer.start) for site, layer in attached(network(phi=phi)).items()}
    assert found == (dict.fromkeys(SITES.values(), (name, "identity")) if name else {})


def test_attention_by_site() -> None:
    model = network(attention={"feat1": "se", "up": "cbam", "feat2": None}, reduction=8, start="paper")
    found = {
        site: (type(layer).__name__, layer.mechanism.options()["reduction"], layer.start)
        for site, layer in attached(model).items()
    }
    assert found == {"sites_feat1": ("SE", 8, "paper"), "sites_up": ("CBAM", 8, "paper")}
    assert attached(fk.detach(model)) == {}


def test_the_numbers_and_the_file_of_coco(tmp_path: Path) -> None:
    model = network(80, None)
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == 6_056_606
    assert model.count_params() == 6_062_814
    assert [output.shape for output in model.outputs] == [(None, None, None, 255)] * 2
    assert [output.shape for output in network(80).outputs] == [(None, 2, 2, 255), (None, 4, 4, 255)]
    save_darknet(model, tmp_path / "a.weights")
    assert (tmp_path / "a.weights").stat().st_size == 24_251_276


def test_a_model_of_any_size(host: Any) -> None:
    model = network(size=None, attention="coordinate")
    set_darknet_arrays(model, darknet_arrays(host))
    for size in (64, 96):
        assert difference(outputs(model, picture(size)), outputs(host, picture(size))) < 1e-4


def test_darknet_files(host: Any, tmp_path: Path) -> None:
    path, model = tmp_path / "torch.weights", network(attention="cbam")
    save_darknet(host, path, seen=5)
    before = {site: layer.get_weights() for site, layer in attached(model).items()}
    assert load_darknet(model, path).kept == ()
    assert all(
        np.array_equal(a, b)
        for site, layer in attached(model).items()
        for a, b in zip(layer.get_weights(), before[site], strict=True)
    )
    save_darknet(model, tmp_path / "keras.weights", seen=5)
    assert (tmp_path / "keras.weights").read_bytes() == path.read_bytes()
    other = network(2)
    heads = {name: other.get_layer(name).get_weights() for name in ("coarse_head", "fine_head")}
    assert load_darknet(other, path).kept == ("coarse_head", "fine_head")
    assert all(
        np.array_equal(a, b)
        for name in heads
        for a, b in zip(other.get_layer(name).get_weights(), heads[name], strict=True)
    )
    np.testing.assert_array_equal(darknet_arrays(other)["fine"]["variance"], darknet_arrays(host)["fine"]["variance"])
    path.write_bytes(path.read_bytes()[:-4])
    weights = other.get_weights()
    with pytest.raises(DataError, match="bytes"):
        load_darknet(other, path)
    assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), weights, strict=True))


def test_grey_images(host: Any, tmp_path: Path) -> None:
    save_darknet(host, tmp_path / "rgb.weights")
    grey, back = fk.yolov4_tiny((64, 64, 1), MASK, 4), network()
    load_darknet(grey, tmp_path / "rgb.weights")
    save_darknet(grey, tmp_path / "grey.weights")
    load_darknet(back, tmp_path / "grey.weights")
    ours, theirs = (darknet_arrays(model)["stem1"]["kernel"] for model in (back, host))
    np.testing.assert_allclose(ours, np.repeat(theirs.mean(1, keepdims=True), 3, 1), atol=1e-6)


def test_it_learns_and_is_saved(tmp_path: Path) -> None:
    model = network(attention="cbam")
    x = to_format(picture(), "channels_last")
    model.compile("sgd", ["mse", "mse"])
    moving = {
        variable.path: variable for variable in model.trainable_variables if variable.path.endswith(("gamma", "kernel"))
    }
    last = ("expand/kernel", "norm/gamma")
    moving = {
        path: variable for path, variable in moving.items() if path.endswith(last if "attention" in path else "kernel")
    }
    before = {path: numpy(variable.value).copy() for path, variable in moving.items()}
    model.fit(x, [np.ones((2, 2, 2, 27), "float32"), np.ones((2, 4, 4, 27), "float32")], verbose=0)
    assert len(moving) == 21 + 2 * len(SITES)
    assert [path for path, variable in moving.items() if np.array_equal(numpy(variable.value), before[path])] == []
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert difference(outputs(again, picture()), outputs(model, picture())) < 1e-5
    assert set(attached(again)) == set(SITES.values())


def test_nothing_is_likely_at_first() -> None:
    for output in outputs(network(), picture()):
        logits = output.reshape(2, 3, 9, -1)
        chance = 1 / (1 + np.exp(-logits[:, :, 4]))
        assert 0.003 < chance.min() < chance.max() < 0.03
        assert np.abs(logits[:, :, 5:]).max() < 1.5


def test_stages_and_what_else_there_is() -> None:
    model = network()
    sites = ["csp1", "csp2", "csp3", "lateral_act", "fine_act", "coarse_act"]
    assert [site.name for site in fk.plan(model, "cbam", "stage").sites] == sites
    with pytest.raises(UsageError, match="where='stage'"):
        fk.plan(model, "cbam")


@pytest.mark.parametrize("mask", WRONG_MASKS, ids=str)
def test_a_wrong_mask_is_refused(mask: Any) -> None:
    with pytest.raises(UsageError, match=r"anchors_mask as 2 lists of different anchors 0\.\.5"):
        fk.yolov4_tiny((64, 64, 3), mask, 4)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: fk.yolov4_tiny((100, 64, 3), MASK, 4), "resize to 96 x 64"),
        (lambda: fk.yolov4_tiny((64, 64, 2), MASK, 4), r"\(H, W, 3\) or \(H, W, 1\)"),
        (lambda: fk.yolov4_tiny((64, 64, 3), MASK, 4, data_format="channels_first"), r"\(3, H, W\)"),
        (lambda: network(data_format="NCHW"), "data_format"),
        (lambda: network(0), "num_classes"),
        (lambda: network(phi=7), "phi as one of"),
        (lambda: network(reduction=8), "reduction without a mechanism"),
        (lambda: network(attention={"up": None}, anchor_mask=MASK), "anchor_mask without a mechanism"),
        (lambda: network(attention={"P5": "se"}), "attention by site"),
        (
            lambda: load_darknet(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU()]), Path("a.weights")),
            "foveate.keras.yolov4_tiny",
        ),
    ],
)
def test_bad_input(wrong: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wrong()


@pytest.mark.skipif(BACKEND == "torch", reason="Keras itself runs on torch here")
def test_no_torch_is_needed(tmp_path: Path) -> None:
    code = f"""import sys, foveate.keras
from foveate.models import load_darknet, save_darknet
model = foveate.keras.yolov4_tiny((32, 32, 3), {MASK}, 1, phi=2)
save_darknet(model, {str(tmp_path / "a.weights")!r})
load_darknet(model, {str(tmp_path / "a.weights")!r})
print("torch" in sys.modules)"""
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-1]
        == "False"
    )
