"""Quantising and folding a baked model keeps its attention, within the error of the host's own quantisation."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.errors import UsageError
from last_layers import wake
from surgery import hosts
from surgery.test_bake import check, pair, truth

quantization = pytest.importorskip("torch.ao.quantization", reason="torch without torch.ao.quantization")
# What torch says of its own code.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{says}")
    for says in (
        "reduction 16 leaves no hidden unit",
        "torch.ao.quantization is deprecated:DeprecationWarning",
        "`torch.jit.script_method` is deprecated:DeprecationWarning",
        "torch.quantize_per_tensor, torch.quantize_per_channel:UserWarning",
        "Please use quant_min and quant_max:UserWarning",
        "must run observer before calling calculate_qparams:UserWarning",
        "TypedStorage is deprecated:UserWarning",
    )
]


def by_fx(model: nn.Module) -> nn.Module:
    """Quantise by FX graph mode, with attention in float, calibrated with one batch."""
    from torch.ao.quantization import quantize_fx

    mapping = quantization.get_default_qconfig_mapping("x86").set_module_name_regex(".*foveate_attention.*", None)
    prepared = quantize_fx.prepare_fx(copy.deepcopy(model), mapping, (hosts.image(),))
    hosts.run(prepared, hosts.image())
    return quantize_fx.convert_fx(prepared)


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.reliability(31)
def test_fx_quantisation() -> None:
    plain, model = pair()
    with pytest.raises(UsageError, match=r"FX tracing of a BatchNorm2d with attention attached\nDo: .*foveate\.bake"):
        by_fx(model)
    x, baked = hosts.image(), foveate.bake(model, example=hosts.SHAPE)
    quantised, own = hosts.run(by_fx(baked), x), far(hosts.run(by_fx(plain), x), truth(plain))
    lost = far(truth(model), truth(plain))
    assert far(quantised, truth(model)) < min(3 * own, lost / 5)


@pytest.mark.reliability(31)
def test_folding_by_fx() -> None:
    from torch.fx.experimental import optimization

    plain, model = pair()
    with pytest.raises(UsageError, match="FX tracing"):
        optimization.fuse(model)
    folded = optimization.fuse(foveate.bake(model, example=hosts.SHAPE))
    norms = [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert [name for name in norms if hosts.CHILD not in name] == ["head_norm"]
    check(folded, model, plain, within=1e-5)


class Block(nn.Module):
    """A residual block written for eager quantisation."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.add = hosts.conv(8, 8), nn.BatchNorm2d(8), torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        return self.add.add(x, self.bn(self.conv(x)))


def for_eager(mechanism: str) -> Any:
    """A host between stubs, and the same with attention in its blocks."""
    steps = [quantization.QuantStub(), hosts.conv(3, 8), Block(), Block(), quantization.DeQuantStub()]
    return pair(mechanism, host=nn.Sequential(*steps))


def by_eager(model: Any, norm: str = "bn", fuse: bool = False) -> nn.Module:
    """Quantise in eager mode, calibrated with one batch."""
    model = copy.deepcopy(model)
    if fuse:
        quantization.fuse_modules(model, [[f"{block}.conv", f"{block}.{norm}"] for block in (2, 3)], inplace=True)
    model.qconfig = quantization.get_default_qconfig("x86")
    prepared = quantization.prepare(model)
    hosts.run(prepared, hosts.image())
    return quantization.convert(prepared)


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("mechanism", ["se", "cbam", "coordinate"])
@pytest.mark.reliability(31)
def test_eager_quantisation(mechanism: str, fuse: bool) -> None:
    plain, model = for_eager(mechanism)
    x = hosts.image()
    lost = r"put in the place of a site|at 0 sites: |no attribute 'activation_post_process'"
    with pytest.raises((UsageError, AttributeError), match=lost):  # the last by torch itself, of a norm with a child
        hosts.run(by_eager(model, fuse=fuse), x)
    baked = foveate.bake(model, example=hosts.SHAPE)
    check(baked, model, plain)
    quantised = by_eager(baked, "bn.foveate_host", fuse)
    assert any("Quantized" in repr(type(m)) or "quantized" in type(m).__module__ for m in quantised.modules())
    own, gone = far(hosts.run(by_eager(plain, fuse=fuse), x), truth(plain)), far(truth(model), truth(plain))
    assert far(hosts.run(quantised, x), truth(model)) < min(3 * own, gone / 5)


@pytest.mark.reliability(31)
def test_folding_in_eager_mode_is_exact() -> None:
    plain, model = for_eager("cbam")
    baked = foveate.bake(model, example=hosts.SHAPE)
    folded = quantization.fuse_modules(baked, [[f"{b}.conv", f"{b}.bn.foveate_host"] for b in (2, 3)])
    assert isinstance(folded.get_submodule("2.bn.foveate_host"), nn.Identity)
    check(folded, model, plain, within=1e-5)


@pytest.mark.reliability(31)
def test_resnet18_of_torchvision() -> None:
    from foveate.models import ensure_torchvision

    ensure_torchvision()
    import torchvision
    from torch.fx.experimental import optimization

    torch.manual_seed(0)
    plain = hosts.settle(torchvision.models.resnet18(weights=None))
    model, x = copy.deepcopy(plain), torch.randn(2, 3, 32, 32)
    foveate.attach(model, "cbam", example=(1, 3, 32, 32))
    wake(model)
    baked, want, host = foveate.bake(model, example=x), truth(model, x), truth(plain, x)
    size = float(want.abs().max())
    assert torch.equal(hosts.run(baked, x), want)
    assert torch.equal(hosts.run(torch.fx.symbolic_trace(baked), x), want)
    assert far(hosts.run(optimization.fuse(baked), x), want) < 1e-5 * size
    assert far(host, want) > 0.05 * size


def torchao() -> Any:
    with warnings.catch_warnings(action="ignore"):  # of its own imports
        return pytest.importorskip("torchao.quantization", reason="needs torchao (pip install foveate[dev])")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.reliability(31)
def test_torchaos_int8_weights() -> None:
    """It replaces the weights of linear layers in place: the attached model and the baked one keep their attention."""
    ao = torchao()
    plain, model = pair()
    for found in (copy.deepcopy(model), foveate.bake(model, example=hosts.SHAPE)):
        ao.quantize_(found, ao.Int8WeightOnlyConfig())
        lost = far(truth(model), truth(plain))
        assert 0 < far(hosts.run(found, hosts.image()), truth(model)) < lost / 5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("baked", [False, True])
@pytest.mark.reliability(31)
def test_torchaos_flow_for_whole_models(baked: bool) -> None:
    """prepare_pt2e starts from torch.export, which sees hooks."""
    torchao()
    with warnings.catch_warnings(action="ignore"):
        flow = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
        x86 = pytest.importorskip("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    layers = [hosts.conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), hosts.conv(8, 8), nn.BatchNorm2d(8)]
    plain, model = pair("se", ["1", "4"], nn.Sequential(*layers), reduction=2)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    found = foveate.bake(model, example=hosts.SHAPE) if baked else model
    prepared = flow.prepare_pt2e(torch.export.export(found.eval(), (hosts.image(),)).module(), quantizer)
    prepared(hosts.image())
    y = flow.convert_pt2e(prepared)(hosts.image()).detach()
    assert far(y, truth(model)) < far(truth(model), truth(plain)) / 5
