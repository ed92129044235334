"""One adapter file works for a network in torch and for the same network in Keras, by name or by a site map."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch import nn

import foveate
import foveate.keras as fk
from foveate.bind import states
from foveate.errors import DataError, FoveateError
from foveate.models import build
from foveate.surgery.keras.host import attached
from foveate.torch_utils.names import CHILD
from on_keras.steps import forward, found, numpy
from on_keras.test_transfer_weights import difference, drawn
from representatives import REPRESENTATIVES
from surgery.test_adapter import FORGED, forge

applications: Any = keras.applications

MIXED = [
    ("cbam", {"reduction": 4, "pools": ("avg", "lse")}),
    ("eca", {}),
    ("coordinate", {"reduction": 4, "activation": "relu"}),
]
SITES = {"norm1": "first_bn", "norm2": "second_bn", "norm3": "third_bn"}
SHAPE = (1, 3, 12, 10)
pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


class Host(nn.Module):
    """Three convolutions with norms, the last two in residual branches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(inputs, 8, 3, padding=1) for inputs in (3, 8, 8))
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(8) for _ in range(3))

    def forward(self, x: Any) -> Any:
        x = self.norm1(self.conv1(x)).relu()
        x = x + self.norm2(self.conv2(x))
        return x + self.norm3(self.conv3(x))


def hosts(channels: int = 8) -> tuple[Any, Any]:
    """Return the same network with the same weights in torch and in Keras, with different names of layers."""
    host = drawn(Host()).eval()
    inputs = x = keras.Input((None, None, 3))
    for number, site in enumerate(SITES.values(), 1):
        convolution = keras.layers.Conv2D(channels, 3, padding="same", name=f"conv{number}")
        norm = keras.layers.BatchNormalization(epsilon=1e-5, name=site)
        y = norm(convolution(x))
        x = keras.layers.ReLU()(y) if number == 1 else keras.layers.Add(name=f"add{number}")([x, y])
        if channels == 8:
            weights = {name: value.numpy() for name, value in host.state_dict().items()}
            convolution.set_weights(
                [weights[f"conv{number}.weight"].transpose(2, 3, 1, 0), weights[f"conv{number}.bias"]]
            )
            norm.set_weights(
                [weights[f"norm{number}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
            )
    return host, keras.Model(inputs, x)


def learnt(host: nn.Module, start: Any = "identity") -> nn.Module:
    """Attach a different mechanism at each site, with random weights."""
    for site, (mechanism, options) in zip(SITES, MIXED, strict=True):
        foveate.attach(host, mechanism, site, example=SHAPE, start=start, **options)
    for number, site in enumerate(SITES):
        drawn(host.get_submodule(f"{site}.{CHILD}"), number)
    return host


def outputs(host: nn.Module, model: Any) -> tuple[np.ndarray, np.ndarray]:
    x = torch.randn((2, *SHAPE[1:]), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = host(x).cpu().numpy().transpose(0, 2, 3, 1)
    return want, forward(model)(np.ascontiguousarray(x.cpu().numpy().transpose(0, 2, 3, 1)))


@pytest.mark.parametrize("start", ["identity", "paper"])
def test_from_torch_to_keras_and_back(start: Any, tmp_path: Path) -> None:
    host, model = hosts()
    plain, before = outputs(host, model)
    np.testing.assert_allclose(before, plain, rtol=1e-4, atol=1e-4)
    foveate.save_adapter(learnt(host, start), tmp_path / "a")

    new = fk.load_adapter(model, tmp_path / "a", sites=SITES)
    want, got = outputs(host, new)
    assert np.abs(want - plain).max() > 0.1  # the attention has an effect
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert {name: layer.mechanism for name, layer in attached(new).items()} == {
        SITES[site]: getattr(host.get_submodule(site), CHILD).mechanism for site in SITES
    }
    assert np.array_equal(
        forward(model)(np.ones((1, 6, 6, 3), "float32")), forward(fk.detach(new))(np.ones((1, 6, 6, 3), "float32"))
    )
    assert attached(model) == {}

    fk.save_adapter(new, tmp_path / "b")
    again, _ = hosts()
    plan = foveate.load_adapter(
        again, tmp_path / "b", sites={theirs: ours for ours, theirs in SITES.items()}, example=SHAPE
    )
    assert [site.name for site in plan.sites] == list(SITES)
    assert (plan.mechanism, plan.options, plan.start) == ("cbam + eca + coordinate", {}, start)
    np.testing.assert_array_equal(outputs(again, new)[0], want)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_every_mechanism_comes_back_to_keras(name: str, tmp_path: Path) -> None:
    _, model = hosts()
    saved = fk.attach(model, name, ["first_bn", "third_bn"], start="paper")
    for layer in attached(saved).values():
        for weight in layer.weights:
            weight.assign(np.random.default_rng(0).uniform(0.2, 1.2, weight.shape))
    fk.save_adapter(saved, tmp_path / "a")
    new = fk.load_adapter(model, tmp_path / "a")
    assert list(attached(new)) == ["first_bn", "third_bn"]
    for site, layer in attached(new).items():
        old = attached(saved)[site]
        assert (layer.mechanism, layer.start, layer.name) == (old.mechanism, old.start, old.name)
        assert [weight.path for weight in layer.weights] == [weight.path for weight in old.weights]
        assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), old.get_weights(), strict=True))


def test_a_loaded_model_is_saved_by_keras(tmp_path: Path) -> None:
    host, model = hosts()
    foveate.save_adapter(learnt(host), tmp_path / "a")
    new = fk.load_adapter(model, tmp_path / "a", sites=SITES)
    new.save(tmp_path / "new.keras")
    want, got = outputs(host, keras.saving.load_model(tmp_path / "new.keras"))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_a_model_inside_a_model_and_channels_first(tmp_path: Path) -> None:
    inner = keras.Sequential(
        [keras.Input((8, 6, 6)), keras.layers.Conv2D(8, 1, data_format="channels_first", name="conv")], name="inner"
    )
    model = keras.Sequential([keras.Input((8, 6, 6)), inner])
    saved = fk.attach(model, "se", "inner/conv", start="paper", reduction=2)
    fk.save_adapter(saved, tmp_path / "a")
    layer = attached(fk.load_adapter(model, tmp_path / "a"))["inner/conv"]
    assert layer.data_format == "channels_first"
    assert all(
        np.array_equal(a, b)
        for a, b in zip(layer.get_weights(), attached(saved)["inner/conv"].get_weights(), strict=True)
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str, tmp_path: Path) -> None:
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(8, 3, name="conv", dtype=dtype)(inputs))
    saved = fk.attach(model, "cbam", "conv", start="paper", reduction=4)
    fk.save_adapter(saved, tmp_path / "a")
    old, new = attached(saved)["conv"], attached(fk.load_adapter(model, tmp_path / "a"))["conv"]
    assert {weight.dtype for weight in new.weights} == {weight.dtype for weight in old.weights} >= {dtype}
    for a, b in zip(old.weights, new.weights, strict=True):
        assert np.array_equal(numpy(keras.ops.cast(a, "float32")), numpy(keras.ops.cast(b, "float32")))


def test_resnet50(tmp_path: Path) -> None:
    """torchvision's and Keras's ResNet-50 have the same 16 residual branches under different names."""
    host = build("torchvision/resnet50", 1000).eval()
    model = applications.ResNet50(weights=None)
    plan = foveate.attach(host, "cbam", example=(1, 3, 64, 64))
    attention = {
        site.name: drawn(getattr(host.get_submodule(site.name), CHILD), number)
        for number, site in enumerate(plan.sites)
    }
    foveate.save_adapter(host, tmp_path / "a")

    sites = {theirs.name: ours.name for theirs, ours in zip(plan.sites, fk.plan(model, "cbam").sites, strict=True)}
    assert (sites["layer1.0.bn3"], sites["layer4.2.bn3"], len(sites)) == ("conv2_block1_3_bn", "conv5_block3_3_bn", 16)
    layers = attached(fk.load_adapter(model, tmp_path / "a", sites=sites))
    assert set(layers) == set(sites.values())
    for number, (theirs, ours) in enumerate(sites.items()):
        wanted, loaded = states.read(attention[theirs]), states.read(layers[ours])
        assert {name for name in wanted if "num_batches" not in name} == loaded.keys()
        for name, value in loaded.items():
            np.testing.assert_allclose(value, wanted[name], rtol=0, atol=1e-6)
        channels = attention[theirs].channels
        run = partial(layers[ours], training=False)
        assert (
            difference(
                attention[theirs], lambda x, run=run: numpy(run(x)), "channels_last", (1, channels, 4, 4), seed=number
            )
            < 1e-5
        )


def test_weights_at_the_wrong_sites_are_seen(tmp_path: Path) -> None:
    host, model = hosts()
    for number, site in enumerate(SITES):
        foveate.attach(host, "eca", site, example=SHAPE, start="paper")
        drawn(host.get_submodule(f"{site}.{CHILD}"), number)
    foveate.save_adapter(host, tmp_path / "a")
    crossed = {"norm1": "third_bn", "norm2": "second_bn", "norm3": "first_bn"}
    want, got = outputs(host, fk.load_adapter(model, tmp_path / "a", sites=crossed))
    assert np.abs(got - want).max() > 1e-3


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    foveate.save_adapter(learnt(hosts()[0]), tmp_path / "adapter")
    return tmp_path / "adapter"


def damage(path: Path) -> Path:
    text = bytearray(path.read_bytes())
    text[-1] ^= 1
    path.write_bytes(text)
    return path


def flat() -> Any:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, name="b")(keras.layers.Conv2D(8, 3, name="a")(inputs))
    return keras.Model(inputs, keras.layers.Flatten(name="flat")(x))


WRONG: dict[str, tuple[Callable[[Any, Path], Any], str]] = {
    "other names, no map": (lambda model, path: fk.load_adapter(model, path), "sites={adapter name: model name}"),
    "a map that misses a site": (
        lambda model, path: fk.load_adapter(model, path, sites={"norm1": "first_bn"}),
        "no counterpart of 'norm2'",
    ),
    "a map with a site more": (
        lambda model, path: fk.load_adapter(model, path, sites={**SITES, "norm9": "add2"}),
        "no counterpart of 'norm9'",
    ),
    "a map to one site twice": (
        lambda model, path: fk.load_adapter(model, path, sites=dict.fromkeys(SITES, "add2")),
        "one counterpart",
    ),
    "a map to no layer": (
        lambda model, path: fk.load_adapter(model, path, sites={**SITES, "norm2": "bn2"}),
        "runs 'bn2'",
    ),
    "no map at all": (lambda model, path: fk.load_adapter(model, path, sites=list(SITES)), "sites as a mapping"),  # pyright: ignore[reportArgumentType]
    "a layer without maps": (
        lambda model, path: fk.load_adapter(
            flat(), path, sites={**dict(zip(SITES, ("a", "b"), strict=False)), "norm3": "flat"}
        ),
        "'flat' cannot be sites",
    ),
    "other channels": (
        lambda model, path: fk.load_adapter(hosts(channels=4)[1], path, sites=SITES),
        "8 channels at 'first_bn'",
    ),
    "a site with attention": (
        lambda model, path: fk.load_adapter(fk.attach(hosts()[1], "eca", "third_bn"), path, sites=SITES),
        "detach",
    ),
    "a damaged file": (lambda model, path: fk.load_adapter(model, damage(path), sites=SITES), "sha256"),
    "no file": (lambda model, path: fk.load_adapter(model, path.with_name("missing"), sites=SITES), "missing"),
    "no model": (lambda model, path: fk.load_adapter(keras.layers.ReLU(), path, sites=SITES), "which is not a model"),
    "another shape": (
        lambda model, path: fk.load_adapter(model, path, sites=SITES, example=(1, 3)),
        "example as the shape",
    ),
    "no attention to save": (lambda model, path: fk.save_adapter(model, path), "attach"),
    "nowhere to save": (
        lambda model, path: fk.save_adapter(fk.attach(hosts()[1], "eca", "add2"), path / "a"),
        "a path that can be written",
    ),
}


@pytest.mark.parametrize(("call", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_work_is_refused(call: Callable[[Any, Path], Any], said: str, adapter: Path) -> None:
    _, model = hosts()
    before = found(model)
    with pytest.raises(FoveateError, match=re.escape(said)) as caught:
        call(model, adapter)
    assert isinstance(caught.value, DataError) == (said in ("sha256", "missing", "a path that can be written"))
    assert found(model) == before


@pytest.mark.parametrize(("change", "error"), [pytest.param(change, error, id=name) for name, change, error in FORGED])
def test_what_a_right_checksum_hides_is_refused(
    change: Callable[[dict], Any], error: type[Exception], tmp_path: Path
) -> None:
    _, model = hosts()
    fk.save_adapter(fk.attach(model, "eca", ["first_bn", "third_bn"]), tmp_path / "a")
    forge(tmp_path / "a", change)
    before = found(model)
    with pytest.raises(error):
        fk.load_adapter(model, tmp_path / "a")
    assert found(model) == before
