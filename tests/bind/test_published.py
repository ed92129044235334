from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import cbam
from timm.layers.coord_attn import CoordAttn, EfficientLocalAttn
from timm.layers.eca import EcaModule
from timm.layers.gather_excite import GatherExcite
from timm.layers.global_context import GlobalContext
from timm.layers.non_local_attn import NonLocalAttn
from timm.layers.selective_kernel import SelectiveKernel
from timm.layers.squeeze_excite import EffectiveSEModule, SEModule
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torchvision.ops import SqueezeExcitation

import foveate
from foveate.bind import published
from foveate.bind.published import WeightLayout, layouts
from foveate.errors import UsageError
from foveate.mechanisms import names
from foveate.surgery.core.published import load_published
from golden_data import configs
from subjects import Subject

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
CHANNELS = 48
Row = tuple[Callable[..., nn.Module], dict[str, Any], str, dict[str, Any]]
TIMM_ELA = {"shared": False, "norm_groups": 1, "activation": "silu"}
THEIRS: dict[str, Row] = {
    "timm-se": (SEModule, {}, "se", {"reduction": 6}),  # rd_divisor rounds 3 units up to 8
    "timm-se-divisor-1": (SEModule, {"rd_divisor": 1}, "se", {}),
    "timm-se-no-bias": (SEModule, {"rd_channels": 12, "bias": False}, "se", {"reduction": 4, "bias": False}),
    "timm-eca": (EcaModule, {}, "eca", {}),
    "timm-cbam": (cbam.CbamModule, {}, "cbam", {"bias": False}),
    "timm-cbam-bias": (cbam.CbamModule, {"mlp_bias": True}, "cbam", {}),
    "timm-cbam-3": (cbam.CbamModule, {"spatial_kernel_size": 3}, "cbam", {"bias": False, "kernel_size": 3}),
    "timm-channel": (cbam.ChannelAttn, {"mlp_bias": True}, "channel", {}),
    "timm-spatial": (lambda channels: cbam.SpatialAttn(), {}, "spatial", {}),
    "timm-coordinate": (CoordAttn, {}, "coordinate", {"bias": False}),
    "timm-coordinate-bias": (CoordAttn, {"rd_channels": 12, "bias": True}, "coordinate", {"reduction": 4}),
    "timm-ese": (EffectiveSEModule, {}, "ese", {}),
    "timm-global-context": (GlobalContext, {}, "global_context", {"reduction": 8, "fusion": "mul", "eps": 1e-6}),
    "timm-global-context-both": (
        GlobalContext,
        {"fuse_add": True, "use_attn": False, "rd_channels": 12},
        "global_context",
        {"reduction": 4, "fusion": "mul-add", "pool": "avg", "eps": 1e-6},
    ),
    "timm-gather-excite": (GatherExcite, {"use_mlp": False}, "gather_excite", {}),
    "timm-gather-excite-8": (GatherExcite, {"use_mlp": False, "extent": 8}, "gather_excite", {"extent": 8}),
    "timm-ela": (EfficientLocalAttn, {}, "ela", TIMM_ELA),
    "timm-ela-bias-skip": (
        EfficientLocalAttn,
        {"kernel_size": 5, "bias": True, "has_skip": True},
        "ela",
        {**TIMM_ELA, "kernel_size": 5, "bias": True, "skip": True},
    ),
    "timm-non-local": (NonLocalAttn, {}, "non_local", {"reduction": 6, "scale": "channels", "pool": "none"}),
    "timm-non-local-unscaled": (
        NonLocalAttn,
        {"use_scale": False, "rd_channels": 24},
        "non_local",
        {"scale": "none", "pool": "none"},
    ),
    "timm-sk": (
        SelectiveKernel,
        {"groups": 4, "rd_channels": 12, "split_input": False},
        "sk",
        {"groups": 4, "reduction": 4, "min_hidden": 0},
    ),
    "torchvision-se": (SqueezeExcitation, {"squeeze_channels": 12}, "se", {"reduction": 4}),
}


def randomised(module: nn.Module) -> nn.Module:
    """Return the module in float64 with every weight and statistic changed from its default."""
    module = module.double()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1.2) if tensor.ndim == 1 else tensor.normal_(0, 0.5)
    return module


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", THEIRS)
def test_a_published_module_and_ours_agree(case: str, training: bool) -> None:
    build, arguments, mechanism, options = THEIRS[case]
    theirs = randomised(build(CHANNELS, **arguments)).train(training)
    ours = foveate.attention(mechanism, CHANNELS, dtype=torch.float64, **options).train(training)
    load_published(ours, theirs.state_dict())
    x = torch.randn(3, CHANNELS, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)


def built(mechanism: str, **options: Any) -> Any:
    """Return the module at the channels of its tests, with the options of its tests unless these replace them."""
    subject = Subject(mechanism)
    return foveate.attention(subject.made, subject.channels, **options)


@pytest.mark.parametrize("mechanism", names())
def test_own_names_round_trip(mechanism: str) -> None:
    saved = randomised(built(mechanism)).float().state_dict()
    module = built(mechanism)
    load_published(module, saved)
    assert equal(module.state_dict(), dict(saved))


@pytest.mark.parametrize("mechanism", names())
def test_a_module_with_the_identity_start_refuses_published_weights(mechanism: str) -> None:
    Subject(mechanism).module(start="identity")  # skips a mechanism that has none
    module = built(mechanism, start="identity")
    before = weights_of(module)
    with pytest.raises(UsageError, match=r'(?s)start="paper".*Do: .*load_state_dict'):
        load_published(module, built(mechanism).state_dict())
    assert equal(weights_of(module), before)


@pytest.mark.parametrize("mechanism", names())
def test_every_layout_loads_under_a_prefix_without_batch_counts_and_as_numpy(mechanism: str) -> None:
    for layout in layouts(mechanism):
        module = built(mechanism, **layout.options)
        if not all(layout.theirs(key) for key in module.state_dict() if not key.endswith(published.OPTIONAL)):
            golden = [one.options for one in configs() if (one.mechanism, one.layout) == (mechanism, layout.name)]
            module = built(mechanism, **{**(golden[0] if golden else {"norm": False}), **layout.options})
        drawn = weights_of(randomised(module).float())
        saved = {
            layout.theirs(key): layout.ours(key, value.numpy())
            for key, value in drawn.items()
            if not key.endswith(published.OPTIONAL)
        }
        other = foveate.attention(module.mechanism, module.channels)
        load_published(
            other, {f"module.layer1.0.attention.{key}": value for key, value in saved.items()}, layout=layout.name
        )
        for key, value in other.state_dict().items():
            want = torch.zeros(()) if key.endswith("tracked") else drawn[key]
            assert torch.equal(value, want.to(value)), (layout.name, key)


def test_linear_weights_fit_convolutions_and_the_layout_is_named() -> None:
    module = foveate.attention("se", 8, reduction=4)
    linear = {
        "fc.0.weight": torch.randn(2, 8),
        "fc.0.bias": torch.randn(2),
        "fc.2.weight": torch.randn(8, 2),
        "fc.2.bias": torch.randn(8),
    }
    assert load_published(module, linear) == "fc"
    assert torch.equal(module.get_submodule("reduce").weight[:, :, 0, 0], linear["fc.0.weight"])  # type: ignore[index]


@pytest.mark.parametrize("old", [False, True], ids=["parametrization", "weight_g and weight_v"])
def test_weights_with_weight_norm_are_multiplied_out(old: bool) -> None:
    theirs = SEModule(CHANNELS, rd_channels=12)
    for layer in (theirs.fc1, theirs.fc2):
        weight_norm(layer)
    saved = randomised(theirs).state_dict()
    if old:
        ends = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
        saved = {f"{key[:4]}{ends.get(key[4:], key[4:])}": value for key, value in saved.items()}
    ours = foveate.attention("se", CHANNELS, reduction=4, dtype=torch.float64)
    assert load_published(ours, saved) == "timm"
    x = torch.randn(3, CHANNELS, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-13, atol=0)


def test_maps_saved_as_mean_and_max_are_turned_round() -> None:
    theirs, ours = cbam.SpatialAttn(), foveate.attention("spatial", 8)
    load_published(ours, theirs.state_dict())
    assert torch.equal(ours.state_dict()["conv.weight"], theirs.state_dict()["conv.conv.weight"].flip(1))


def se(**options: Any) -> dict[str, torch.Tensor]:
    return SEModule(16, rd_channels=4, **options).state_dict()


def timm_cbam(kind: type[nn.Module] = cbam.CbamModule) -> dict[str, torch.Tensor]:
    return kind(16, mlp_bias=True).state_dict()


NO_BIAS = cbam.CbamModule(16).state_dict()
REFUSED: dict[str, tuple[str, dict[str, Any], Any, str]] = {
    "no biases for biases": (
        "se",
        {"reduction": 4},
        se(bias=False),
        r"bias=False.*timm.*Do: build the module with bias=False",
    ),
    "biases for none": ("se", {"reduction": 4, "bias": False}, se(), r"Do: build the module with bias=True"),
    "other width": ("se", {}, se(), r"'fc1.weight' of shape \(1, 16, 1, 1\).*\(4, 16, 1, 1\).*reduction"),
    "a norm and no norm": ("cbam", {"norm": False}, timm_cbam(), r"Do: .* norm=True$"),
    "two switches": ("cbam", {"norm": False}, NO_BIAS, r"Do: .*bias=False, norm=True$"),
    "light CBAM": (
        "cbam",
        {},
        timm_cbam(cbam.LightCbamModule),
        r"spatial.conv.conv.weight.*\(1, 2, 7, 7\).*\(1, 1, 7, 7\)",
    ),
    "other order": ("cbam", {"order": "parallel"}, timm_cbam(), r"order='channel-spatial', as the layout 'timm'"),
    "effective SE": (
        "se",
        {},
        EffectiveSEModule(16).state_dict(),
        r"known for se:\n  fc .*fc.2.bias\n.*timm.*fc1.*the keys fc.weight",
    ),
    "ECA with an MLP": ("eca", {}, EcaModule(16, use_mlp=True).state_dict(), r"known for eca.*conv2.weight"),
    "an extra key": ("se", {"reduction": 4}, {**se(), "bn.weight": torch.zeros(4)}, r"known for se"),
    "nothing": ("se", {}, {}, "an empty state dict"),
    "no tensors": ("se", {}, {"state_dict": se()}, r"names and tensors.*'state_dict': "),
    "no mapping": ("se", {}, [1], r"a state dict.*list"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_and_changes_nothing(case: str) -> None:
    mechanism, options, saved, message = REFUSED[case]
    module = foveate.attention(mechanism, 16, **options)
    before = weights_of(module)
    with pytest.raises(UsageError, match=f"(?s){message}"):
        load_published(module, saved)
    assert equal(before, module.state_dict())


def test_a_layout_can_be_named_and_a_wrong_name_is_refused() -> None:
    module = foveate.attention("se", 16, reduction=4)
    assert load_published(module, se(), layout="timm") == "timm"
    with pytest.raises(UsageError, match="known for se:\n  fc"):
        load_published(module, se(), layout="fc")
    with pytest.raises(UsageError, match="did you mean 'timm'"):
        load_published(module, se(), layout="tim")


def test_only_a_bound_mechanism_is_loaded_into() -> None:
    with pytest.raises(UsageError, match="made by foveate"):
        load_published(np.zeros(3), {})
    with pytest.raises(UsageError, match=r"without attention(.|\n)*attach\(model, ...\) first"):
        load_published(nn.Conv2d(1, 1, 1), {})


def test_two_layouts_of_the_same_names_must_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        WeightLayout("ours", "A", {"conv": "sa.conv"}),
        WeightLayout("theirs", "B", {"conv": "sa.conv"}, flip=["conv"]),
    ]
    monkeypatch.setattr(published, "layouts", lambda mechanism: both)
    module = foveate.attention("spatial", 8, norm=False)
    before = weights_of(module)
    saved = {"sa.conv.weight": torch.from_numpy(np.arange(98.0, dtype=np.float32).reshape(1, 2, 7, 7))}
    with pytest.raises(UsageError, match=r"(?s)'ours', 'theirs'.*layout="):
        load_published(module, saved)
    assert equal(before, module.state_dict())
    assert load_published(module, saved, layout="theirs") == "theirs"
    assert torch.equal(module.state_dict()["conv.weight"], saved["sa.conv.weight"].flip(1))


def test_a_layout_names_single_weights_of_another_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"reduce.weight": "squeeze", "reduce.bias": "offset", "expand": "up"}
    monkeypatch.setattr(published, "layouts", lambda mechanism: [WeightLayout("loose", "A", names)])
    module = foveate.attention("se", 8, reduction=4)
    squeeze, offset = torch.randn(1, 2, 8, 1), torch.randn(1, 2, 1, 1)
    saved = {"squeeze": squeeze, "offset": offset, "up.weight": torch.randn(8, 2), "up.bias": torch.randn(8)}
    assert published.is_of("se", published.arrays(saved))
    assert load_published(module, saved) == "loose"
    reduce: Any = module.get_submodule("reduce")
    assert torch.equal(reduce.weight[:, :, 0, 0], squeeze[0, :, :, 0])
    assert torch.equal(reduce.bias, offset[0, :, 0, 0])
    with pytest.raises(UsageError, match=r"Expected 'squeeze' of shape \(2, 8, 1, 1\)"):
        load_published(module, {**saved, "squeeze": squeeze.swapaxes(1, 2)})


def as_keras(saved: dict[str, torch.Tensor]) -> dict[str, list[np.ndarray]]:
    """Return weights and biases by layer, as `layer.get_weights()` lists them."""
    order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    layers: dict[str, list[np.ndarray]] = {}
    for key, value in saved.items():
        if not key.endswith("tracked"):
            array = value.numpy()
            layers.setdefault(key.rpartition(".")[0], []).append(
                array.transpose(order[array.ndim]) if key.endswith("weight") else array
            )
    return layers


def test_arrays_by_layer_as_keras_saves_them() -> None:
    saved = {
        "mlp_1.weight": torch.randn(8, 16),
        "mlp_1.bias": torch.randn(8),
        "mlp_2.weight": torch.randn(16, 8),
        "mlp_2.bias": torch.randn(16),
        "conv.weight": torch.randn(1, 2, 7, 7),
        "conv.bias": torch.randn(1),
    }
    options = {"reduction": 0.5, "norm": False, "spatial_bias": True, "order": "parallel"}
    first, second, third = (foveate.attention("cbam", 16, **options) for _ in range(3))
    assert load_published(first, saved) == "tf_cbam"
    assert load_published(second, as_keras(saved)) == "tf_cbam"
    paths = {
        f"{layer}/{leaf}:0": value
        for layer, values in as_keras(saved).items()
        for leaf, value in zip(("kernel", "bias"), values, strict=True)
    }
    assert load_published(third, paths) == "tf_cbam"
    assert equal(first.state_dict(), second.state_dict())
    assert equal(first.state_dict(), third.state_dict())


def test_a_batch_norm_as_keras_saves_it() -> None:
    options = {"reduction": 16, "min_hidden": 1, "bias": False, "activation": "relu", "eps": 1e-3}
    module = foveate.attention("coordinate", 32, **options)
    kernels = {
        name: [np.ones((1, 1, *shape), np.float32)]
        for name, shape in {"conv1": (32, 2), "conv2": (2, 32), "conv3": (2, 32)}.items()
    }
    norm = [np.full(2, value, np.float32) for value in (1, 2, 3, 4)]
    assert load_published(module, {**kernels, "bn": norm}) == "keras_coordinate"
    found = module.state_dict()
    assert [float(found[f"norm.{name}"][0]) for name in ("weight", "bias", "running_mean", "running_var")] == [
        1,
        2,
        3,
        4,
    ]
