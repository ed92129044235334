"""Each operation and part alone, as a mechanism, beside the same in plain torch, which every backend must equal."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as T

from foveate.ops import Array, Bound, Ops
from foveate.parts import ChannelConv, Constant, Conv, Gate, Norm, Part, Parts, Scale
from foveate.spec import Mechanism

CHANNELS = 4
SHAPE = (2, CHANNELS, 6, 5)
HW = (2, 3)
CORNERS = {"nearest": None, "bilinear": False}
VALUES = tuple(tuple(tuple(math.cos(c + 2 * h + 3 * w) for w in range(5)) for h in range(6)) for c in range(4))
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Word(Mechanism):
    """An operation, or a part `p.part`, and the reference of its output from x and the part's weights."""

    word: str
    body: Callable[[Any, Any, Any], Any]
    reference: Callable[[Tensor, Weights], Tensor]
    tested: Mapping[str, Part] = field(default_factory=dict, hash=False)

    def parts(self, channels: int) -> Parts:
        return self.tested

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return self.body(F, p, x)

    def __str__(self) -> str:
        return self.word


def conv(part: Conv) -> Word:
    def reference(x: Tensor, w: Weights) -> Tensor:
        pads = [(part.dilation * (k - 1)) // 2 if part.padding == "same" else 0 for k in part.size]
        settings = {"stride": part.stride, "dilation": part.dilation, "groups": part.groups}
        return T.conv2d(x, w["part.weight"], w.get("part.bias"), padding=pads, **settings)

    return Word(
        f"Conv{part.size}g{part.groups}d{part.dilation}s{part.stride}{part.padding}", part_of, reference, {"part": part}
    )


def part_of(F: Any, p: Any, x: Any) -> Any:
    return p.part(x)


def gate_of(F: Any, p: Any, x: Any) -> Any:
    return p.part(x, 3 * x)


def affine(y: Tensor, w: Weights) -> Tensor:
    return y * w["part.weight"][:, None, None] + w["part.bias"][:, None, None]


def local_conv(x: Tensor, weights: Tensor) -> Tensor:
    """Weigh the 3 x 3 neighbours of each position by weights for two groups."""
    neighbours = T.unfold(x, 3, padding=1).view(2, 2, 2, 9, 6, 5)
    return (neighbours * weights.view(2, 1, 2, 9, 6, 5)).sum(3).view(x.shape)


def criss_cross(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend over all positions, those of other rows and columns masked."""
    rows, columns = torch.arange(6), torch.arange(5)
    seen = (rows[:, None, None, None] == rows[:, None]) | (columns[:, None, None] == columns)
    q, k, v = (t.flatten(2).mT for t in (queries, keys, values))
    shares = (q @ k.mT).masked_fill(~seen.reshape(30, 30), -math.inf).softmax(2)
    return (shares @ v).mT.reshape(values.shape)


OPERATIONS = [
    Word(
        "arithmetic", lambda F, p, x: 2 - (1 - x) * 3 / (x * x + 2) + -x, lambda x, w: 2 - (1 - x) * 3 / (x * x + 2) - x
    ),
    Word("mean", lambda F, p, x: F.mean(x, F.h), lambda x, w: x.mean(2, True)),
    Word("sum", lambda F, p, x: F.sum(x, F.c), lambda x, w: x.sum(1, True)),
    Word("max", lambda F, p, x: F.max(x, F.w), lambda x, w: x.amax(3, True)),
    Word("variance", lambda F, p, x: F.variance(x, F.hw), lambda x, w: x.var(HW, correction=0, keepdim=True)),
    Word(
        "variance, known mean",
        lambda F, p, x: F.variance(x, F.hw, mean=F.mean(x, F.hw)),
        lambda x, w: x.var(HW, correction=0, keepdim=True),
    ),
    Word(
        "variance, unbiased", lambda F, p, x: F.variance(x, F.hw, unbiased=True), lambda x, w: x.var(HW, keepdim=True)
    ),
    Word(
        "variance of one value",
        lambda F, p, x: F.variance(F.mean(x, F.hw), F.hw, unbiased=True) + x,
        lambda x, w: x,
    ),
    Word("softmax", lambda F, p, x: F.softmax(x, F.c), lambda x, w: x.softmax(1)),
    Word("softmax of positions", lambda F, p, x: F.softmax(x, F.hw), lambda x, w: x.flatten(2).softmax(2).view_as(x)),
    Word(
        "variance, known squares",
        lambda F, p, x: F.variance(x, F.hw, unbiased=True, squares=(x - F.mean(x, F.hw)) ** 2),
        lambda x, w: x.var(HW, keepdim=True),
    ),
    Word("sqrt of a sum", lambda F, p, x: F.sqrt(F.relu(x), 0.25), lambda x, w: (x.relu() + 0.25).pow(0.5)),
    Word("power", lambda F, p, x: x**2, lambda x, w: x.square()),
    Word(
        "average",
        lambda F, p, x: F.average([x, F.relu(x), F.sigmoid(x)]),
        lambda x, w: torch.stack([x, x.relu(), x.sigmoid()]).mean(0),
    ),
    Word("sqrt", lambda F, p, x: F.sqrt(F.relu(x - 0.3)), lambda x, w: (x - 0.3).relu().pow(0.5).where(x > 0.3, 0.0)),
    Word(
        "maximum",
        lambda F, p, x: F.maximum(x, F.mean(x, F.hw)),
        lambda x, w: torch.max(x, x.mean(HW, True).expand_as(x)),
    ),
    Word("sigmoid", lambda F, p, x: F.sigmoid(x), lambda x, w: 1 / (1 + (-x).exp())),
    Word("tanh", lambda F, p, x: F.tanh(x), lambda x, w: 1 - 2 / (1 + (2 * x).exp())),
    Word("silu", lambda F, p, x: F.silu(x), lambda x, w: x / (1 + (-x).exp())),
    Word("gelu", lambda F, p, x: F.gelu(x), lambda x, w: x * (1 + torch.erf(x / math.sqrt(2))) / 2),
    Word("hardswish", lambda F, p, x: F.hardswish(4 * x), lambda x, w: 4 * x * T.relu6(4 * x + 3) / 6),
    Word(
        "transpose",
        lambda F, p, x: F.transpose(x),
        lambda x, w: torch.einsum("nchw->nhwc", x).reshape(2, 30, 4, 1),
    ),
    Word(
        "matmul",
        lambda F, p, x: F.matmul(F.matmul(x, F.transpose(x)), x),
        lambda x, w: torch.einsum("nahw,nbhw,nbuv->nauv", x, x, x),
    ),
    Word("group", lambda F, p, x: F.group(x, 2), lambda x, w: x.reshape(4, 2, 6, 5)),
    Word("ungroup", lambda F, p, x: F.ungroup(F.swap(F.group(x, 2), F.h, F.w), 2), lambda x, w: x.mT),
    Word("pool, mean", lambda F, p, x: F.pool(x, "mean", 3, 2, 1), lambda x, w: T.avg_pool2d(x, 3, 2, 1)),
    Word(
        "pool, mean_inside",
        lambda F, p, x: F.pool(x, "mean_inside", 3, 2, 1),
        lambda x, w: T.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    ),
    Word("pool, max", lambda F, p, x: F.pool(x, "max", 3, 2, 1), lambda x, w: T.max_pool2d(x, 3, 2, 1)),
    *(
        Word(
            f"resize, {method}, window {window}",
            lambda F, p, x, method=method, window=window: F.resize(F.pool(x, "mean", window), x, method),
            lambda x, w, method=method, window=window: T.interpolate(
                T.avg_pool2d(x, window, 1),
                (6, 5),
                mode=method,
                **({"align_corners": False} if method == "bilinear" else {}),
            ),
        )
        for method in ("nearest", "bilinear")
        for window in (3, 5)
    ),
    Word(
        "resize, aligned",
        lambda F, p, x: F.resize(F.pool(x, "mean", 3), x, "aligned"),
        lambda x, w: T.interpolate(T.avg_pool2d(x, 3, 1), (6, 5), mode="bilinear", align_corners=True),
    ),
    Word(
        "resize to one row, aligned",
        lambda F, p, x: F.resize(x, F.mean(x, F.h), "aligned"),
        lambda x, w: T.interpolate(x, (1, 5), mode="bilinear", align_corners=True),
    ),
    *(
        Word(
            f"adaptive_pool, {kind}, to {size}",
            lambda F, p, x, kind=kind, size=size: F.adaptive_pool(x, kind, size),
            lambda x, w, pool=pool, size=size: pool(x, size),
        )
        for kind, pool in (("mean", T.adaptive_avg_pool2d), ("max", T.adaptive_max_pool2d))
        for size in ((4, 3), (3, 5), (1, 1), (7, 11))
    ),
    Word("shuffle", lambda F, p, x: F.shuffle(x, 2), lambda x, w: T.channel_shuffle(x, 2)),
    Word(
        "to_sequence",
        lambda F, p, x: F.from_sequence(p.part(F.to_sequence(x)), x),
        lambda x, w: (
            T.conv1d(x.permute(0, 2, 3, 1).reshape(2, 1, 120), w["part.weight"], padding=1)
            .view(2, 6, 5, 4)
            .permute(0, 3, 1, 2)
        ),
        {"part": ChannelConv(3)},
    ),
    Word(
        "local_conv",
        lambda F, p, x: F.local_conv(x, p.part(x), 3),
        lambda x, w: local_conv(x, T.conv2d(x, w["part.weight"], w["part.bias"])),
        {"part": Conv(4, 18)},
    ),
    Word(
        "attend_linear",
        lambda F, p, x: F.attend_linear(x, F.relu(x), 3 * x),
        lambda x, w: torch.einsum("ndq,ndk,nck->ncq", *(t.flatten(2) for t in (x, x.relu(), x / 10))).view_as(x),
    ),
    Word(
        "attend_channels",
        lambda F, p, x: F.attend_channels(x, F.relu(x), F.mean(x, F.w), -0.5),
        lambda x, w: (torch.einsum("nchw,ndhw->ncd", x, -0.5 * x.relu()).softmax(2) @ x.mean(3))[..., None],
    ),
    Word(
        "attention_pool",
        lambda F, p, x: F.attention_pool(x, F.relu(x - 0.3)),
        lambda x, w: torch.einsum("nchw,nmhw->ncm", x, (x - 0.3).relu().flatten(2).softmax(2).view_as(x))[..., None],
    ),
    Word(
        "criss_cross",
        lambda F, p, x: F.criss_cross(x, F.relu(x), 3 * x),
        lambda x, w: criss_cross(x, x.relu(), 3 * x),
    ),
    Word(
        "resize, smaller",
        lambda F, p, x: F.resize(x, F.pool(x, "mean", 3), "bilinear"),
        lambda x, w: T.interpolate(x, (4, 3), mode="bilinear", align_corners=False),
    ),
]
PARTS = [
    *map(
        conv,
        [
            Conv(4, 6, 3),
            Conv(4, 6, (1, 5), bias=False),
            Conv(4, 8, 3, groups=2),
            Conv(4, 4, (5, 3), groups=4, dilation=2),
            Conv(4, 8, 3, groups=4),
            Conv(4, 3, 3, dilation=2),
            Conv(4, 6, 3, stride=2),
            Conv(4, 4, 2, stride=2, padding="valid", bias=False),
            Conv(4, 4, (6, 5), groups=4, padding="valid"),
        ],
    ),
    Word(
        "layer norm",
        part_of,
        lambda x, w: affine(T.layer_norm(x.movedim(1, 3), (4,)).movedim(3, 1), w),
        {"part": Norm(4, kind="layer")},
    ),
    Word(
        "group norm",
        part_of,
        lambda x, w: T.group_norm(x, 2, w["part.weight"], w["part.bias"]),
        {"part": Norm(4, kind="group", groups=2)},
    ),
    Word(
        "group norm of one value",
        lambda F, p, x: x + p.part(F.mean(x, F.hw)),
        lambda x, w: x + affine(torch.zeros_like(x), w),
        {"part": Norm(4, kind="group", groups=4)},
    ),
    Word(
        "instance norm",
        part_of,
        lambda x, w: T.instance_norm(x, weight=w["part.weight"], bias=w["part.bias"], eps=1e-3),
        {"part": Norm(4, kind="instance", eps=1e-3)},
    ),
    Word(
        "weight",
        lambda F, p, x: p.part(x) * F.weight(p.part) / F.sum(F.weight(p.part), F.c),
        lambda x, w: (
            T.instance_norm(x, weight=w["part.weight"], bias=w["part.bias"])
            * (w["part.weight"] / w["part.weight"].sum()).detach()[:, None, None]
        ),
        {"part": Norm(4, kind="instance")},
    ),
    Word("a number", part_of, lambda x, w: x * w["part.weight"], {"part": Scale()}),
    Word("a factor and a summand", part_of, affine, {"part": Scale(4, bias=True)}),
    Word("a constant", part_of, lambda x, w: x * torch.tensor(VALUES, dtype=x.dtype), {"part": Constant(VALUES)}),
    Word(
        "hard sigmoid",
        gate_of,
        lambda x, w: x * (3 * x + 3).clamp(0, 6) / 6,
        {"part": Gate("full", activation="hard_sigmoid")},
    ),
    Word(
        "1 + tanh",
        gate_of,
        lambda x, w: x * (1 + (3 * x).tanh()),
        {"part": Gate("full", activation="tanh", offset=1.0)},
    ),
    Word("linear", gate_of, lambda x, w: 3 * x * x, {"part": Gate("full", activation="linear")}),
]
WORDS = OPERATIONS + PARTS


def wanted(word: Word, weights: Weights) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Return x, the reference output, and the gradients of a weighted sum of it for x and each weight."""
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    learnt = {name: value.clone().requires_grad_() for name, value in weights.items()}
    y = word.reference(x, learnt)
    (y * upstream(y)).sum().backward()
    assert x.grad is not None
    return x.detach(), y.detach(), x.grad, {name: w.grad for name, w in learnt.items() if w.grad is not None}


def upstream(y: Tensor) -> Tensor:
    """Return a gradient with another value for every entry."""
    return torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
