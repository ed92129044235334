"""YOLOv4-tiny in torch: its sizes, its sites, and what users do with a model."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveate import mechanisms
from foveate.errors import UsageError
from foveate.models import YOLOv4Tiny, darknet_arrays
from foveate.models.yolov4_tiny_layers import head_bias
from foveate.surgery import attach, detach, host_state_dict, plan
from foveate.surgery.torch.child import attached
from representatives import REPRESENTATIVES

SITES = ["sites.feat2", "sites.up", "sites.feat1"]  # in the order in which they run
SHAPE = (2, 3, 64, 96)
pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return the model in eval mode with random statistics and head biases, as if trained."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low in (
                (module.weight, 0.5),
                (module.bias, -0.5),
                (module.running_mean, -0.5),
                (module.running_var, 0.5),
            ):
                assert value is not None
                value.data.uniform_(low, low + 1, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def host() -> nn.Module:
    torch.manual_seed(0)
    return settled(YOLOv4Tiny(4))


def images(*shape: int) -> Tensor:
    return torch.rand(shape or SHAPE, generator=torch.Generator().manual_seed(1))


def run(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return model(x)


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def close(one: Any, other: Any, tolerance: float = 1e-5) -> None:
    for a, b in zip(one, other, strict=True):
        assert float((a - b).abs().max() / b.abs().max()) < tolerance


def test_the_numbers_of_coco() -> None:
    model = YOLOv4Tiny()
    statistics = sum(buffer.numel() for name, buffer in model.named_buffers() if "running" in name)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert (parameters, parameters + statistics) == (6_056_606, 6_062_814)
    assert [tuple(output.shape) for output in run(model, images())] == [(2, 255, 2, 3), (2, 255, 4, 6)]


@pytest.mark.parametrize(("mask", "outputs"), [([[3, 4, 5], [1, 2, 3]], (27, 27)), (((5,), (0, 1)), (9, 18))])
def test_the_outputs_follow_the_mask_and_the_classes(mask: Any, outputs: tuple[int, int]) -> None:
    model = YOLOv4Tiny(4, mask)
    assert tuple(output.shape[1] for output in run(model, images())) == outputs
    assert [len(head.anchors) for head in model.heads] == [len(row) for row in mask]
    assert [head.stride for head in model.heads] == [32, 16]


def test_the_cross_stage_block_is_the_cfgs(host: Any) -> None:
    """groups=2, group_id=1 is the second half; in the concatenations, the last convolution or the input comes first."""
    x = torch.randn(1, 64, 6, 5)
    block = host.csp1
    with torch.no_grad():
        whole = block.whole(x)
        first = block.first(whole[:, 32:])
        second = block.second(first)
        merged = block.merge(torch.cat([second, first], 1))
        assert torch.equal(block(x), torch.cat([whole, merged], 1))


def test_feat1_is_the_last_convolution_of_the_third_block(host: Any) -> None:
    seen: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, args, output, name=name: seen.update({name: output}))
        for name, module in host.named_modules()
        if name in {"csp3.merge", "deep", *SITES}
    ]
    run(host, images())
    for hook in hooks:
        hook.remove()
    assert torch.equal(seen["sites.feat1"], seen["csp3.merge"])
    assert torch.equal(seen["sites.feat2"], seen["deep"])
    assert [tuple(seen[name].shape[1:]) for name in SITES] == [(512, 2, 3), (128, 4, 6), (256, 4, 6)]


def test_nothing_is_likely_at_first() -> None:
    torch.manual_seed(0)
    model = YOLOv4Tiny(4).eval()
    for output in run(model, images()):
        chance = output.unflatten(1, (3, 9))[:, :, 4].sigmoid()
        assert 0.003 < chance.min() < chance.max() < 0.03
    assert head_bias(18, 2) == [0, 0, 0, 0, -4.595, 0, 0, 0, 0] * 2


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_attention_starts_as_identity(host: nn.Module, name: str) -> None:
    torch.manual_seed(0)
    model = YOLOv4Tiny(4, attention=name)
    model.load_state_dict(host.state_dict(), strict=False)
    assert set(attached(model)) == set(SITES)
    assert same(run(model.eval(), images()), run(host, images()))
    assert list(host_state_dict(model)) == list(host.state_dict())


@pytest.mark.parametrize(("phi", "name"), list(enumerate([None, "se", "cbam", "eca", "coordinate"])))
def test_phi(phi: int, name: str | None) -> None:
    model = YOLOv4Tiny(4, phi=phi)
    found = {held.attention.mechanism.name for held in attached(model).values()}
    assert found == ({name} if name else set())


def test_attention_by_site_and_by_options() -> None:
    model = YOLOv4Tiny(
        4, attention={"feat1": "se", "up": mechanisms.create("cbam", reduction=4), "feat2": None}, start="paper"
    )
    found: dict[str, Any] = {site: held.attention for site, held in attached(model).items()}
    assert {site: (one.mechanism.name, one.mechanism.reduction, one.start) for site, one in found.items()} == {
        "sites.feat1": ("se", 16, "paper"),
        "sites.up": ("cbam", 4, "paper"),
    }
    assert plan(YOLOv4Tiny(4), "se", "sites.*", reduction=8).parameters == sum(
        parameter.numel()
        for name, parameter in YOLOv4Tiny(4, attention="se", reduction=8).named_parameters()
        if "foveate" in name
    )


@pytest.mark.parametrize(
    ("where", "sites"),
    [
        ("sites.*", SITES),
        ("stage", ["csp1", "csp2", "csp3", "lateral.act", "coarse.act", "fine.act"]),
        ("csp?.merge", ["csp1.merge", "csp2.merge", "csp3.merge"]),
    ],
)
def test_any_other_place_by_attach(host: nn.Module, where: str, sites: list[str]) -> None:
    model = copy.deepcopy(host)
    assert [site.name for site in attach(model, "cbam", where).sites] == sites
    assert same(run(model, images()), run(host, images()))
    detach(model)
    assert same(run(model, images()), run(host, images()))


def test_without_residual_additions_the_presets_that_work_are_named(host: nn.Module) -> None:
    with pytest.raises(UsageError, match="use where='stage'"):
        plan(host, "cbam")


def test_feat1_attention_is_only_on_the_neck(host: nn.Module) -> None:
    model = YOLOv4Tiny(4, attention={"feat1": "se"}, start="paper").eval()
    model.load_state_dict(host.state_dict(), strict=False)
    (coarse, fine), (plain_coarse, plain_fine) = run(model, images()), run(host, images())
    assert torch.equal(coarse, plain_coarse)
    assert not torch.allclose(fine, plain_fine)


@pytest.mark.parametrize("where", ["sites.*", "stage", ["csp1.whole.conv", "p5.norm", "fine"]])
def test_fused(host: nn.Module, where: Any) -> None:
    model: Any = copy.deepcopy(host)
    attach(model, "cbam", where, start="paper")
    settled(model).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = model.fused()
    assert model.training
    assert not fused.training
    assert list(before) == list(model.state_dict())
    close(run(fused, images()), run(model.eval(), images()), 1e-4)
    assert set(attached(fused)) == set(attached(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    norms = sum(isinstance(module, nn.BatchNorm2d) for name, module in fused.named_modules() if "foveate" not in name)
    assert norms == (2 if isinstance(where, list) else 0)
    with pytest.raises(UsageError, match="fused"):
        darknet_arrays(fused)


@pytest.fixture(scope="module")
def attentive(host: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model = copy.deepcopy(host)
    attach(model, "cbam", "sites.*", start="paper")
    return settled(model)


def test_compile_in_one_graph(attentive: nn.Module) -> None:
    compiled = torch.compile(attentive, fullgraph=True, backend="aot_eager")
    close(run(compiled, images()), run(attentive, images()))
    torch.compiler.reset()


def test_export_with_open_sizes(attentive: nn.Module) -> None:
    multiple = {axis: 32 * torch.export.Dim(f"n{axis}", min=1, max=8) for axis in (2, 3)}
    exported = torch.export.export(
        attentive, (images(),), dynamic_shapes={"x": {0: torch.export.Dim("batch"), **multiple}}
    ).module()
    for shape in (SHAPE, (3, 3, 96, 64)):
        close(run(exported, images(*shape)), run(attentive, images(*shape)))


def test_deepcopy_and_training(attentive: nn.Module) -> None:
    model = copy.deepcopy(attentive).train()
    assert same(run(model.eval(), images()), run(attentive, images()))
    loss: Any = sum(output.square().mean() for output in model.train()(images()))
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


WRONG_MASKS: list[Any] = [
    *[[[3, 4, 5]], [[3, 4, 5], [1, 2, 3], [0]], [[3, 4, 5], []], [], None, 3, "cbam", [3, 4]],  # not two lists
    *[
        [[3, 4, 5], [1, 2, 6]],
        [[-1], [1]],
        [[3, 4, 4], [1, 2, 3]],
        [[3, 4, 5], [1, 1, 3]],
    ],  # no such anchor, or twice in one list
    *[[[3.0, 4, 5], [1, 2, 3]], [["3"], ["1"]], [[True], [1]], [[[3]], [1]]],  # not whole numbers
]


@pytest.mark.parametrize("mask", WRONG_MASKS, ids=str)
def test_a_wrong_mask_is_refused(mask: Any) -> None:
    with pytest.raises(UsageError, match=r"anchors_mask as 2 lists of different anchors 0\.\.5"):
        YOLOv4Tiny(4, mask)


BAD_INPUT = [
    (lambda: YOLOv4Tiny(0), "classes as a whole number >= 1"),
    (lambda: YOLOv4Tiny(4, phi=5), "3 eca, 4 coordinate"),
    (lambda: YOLOv4Tiny(4, phi=True), "phi as one of"),
    (lambda: YOLOv4Tiny(4, attention="eca", phi=1), "attention or phi"),
    (lambda: YOLOv4Tiny(4, attention={"feat3": "eca"}), "did you mean 'feat2' or 'feat1'"),
    (lambda: YOLOv4Tiny(4, attention="cbma"), "did you mean 'cbam'"),
    (lambda: YOLOv4Tiny(4, attention="se", ratio=4), "option of se"),
    (lambda: YOLOv4Tiny(4, reduction=8), "reduction without a mechanism"),
    (lambda: YOLOv4Tiny(4, attention={"up": None}, reduction=8), "reduction without a mechanism"),
    (lambda: YOLOv4Tiny(4, anchor_mask=[[3, 4, 5], [0, 1, 2]], phy=2), "anchor_mask, phy without a mechanism"),
]


@pytest.mark.parametrize(("wrong", "said"), BAD_INPUT)
def test_invalid_arguments_are_refused(wrong: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wrong()


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1, 3, 100, 64), "resize to 96 x 64"),
        ((1, 3, 64, 20), "64 x 32"),
        ((3, 64, 64), "images"),
        ((1, 1, 64, 64), "images"),
    ],
)
def test_other_images_are_refused(host: nn.Module, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(host, images(*shape))
