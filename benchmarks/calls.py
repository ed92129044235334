"""The calls to time: attention modules of all packages, in any memory layout, as forward or training step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import foveate
from benchmarks.options import Shape
from foveate.bind.torch.attention import Attention
from foveate.bind.torch.ops import TorchOps
from foveate.models.torchvision_guard import ensure_torchvision
from foveate.spec import Mechanism

TIMM_NAMES = {"se": "se", "eca": "eca", "cbam": "cbam", "coordinate": "coord"}
Call = Callable[[], object]


class PlainOps(TorchOps):
    """The vocabulary without kernels, also for the inner mechanisms of a mechanism."""

    def apply(self, mechanism: Mechanism, p: Any, *xs: Tensor, inplace: bool = False) -> Tensor:
        """Run the mechanism's own forward."""
        return mechanism.forward(self, p, *xs)


PLAIN_OPS = PlainOps()


class Plain(nn.Module):
    """Attention by the plain operations of torch, also where kernels are available."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        """Apply the mechanism to x (N, C, H, W)."""
        return PLAIN_OPS.apply(self.attention.mechanism, self.attention, x)


def plain(mechanism: str, channels: int) -> Plain:
    """Return the named attention for maps (N, channels, H, W) by plain operations."""
    return Plain(foveate.attention(mechanism, channels))


def timm_attention(mechanism: str, channels: int) -> nn.Module:
    """Return timm's own attention of that name for maps (N, channels, H, W)."""
    ensure_torchvision()
    from timm.layers.create_attn import create_attn

    module = create_attn(TIMM_NAMES[mechanism], channels)
    if module is None:
        raise ValueError(f"timm has no {mechanism}")
    return module


def variants(mechanism: str, channels: int) -> dict[str, nn.Module]:
    """Return the modules to compare: "foveate" (kernels), "plain" (plain operations), and "timm" where timm has it."""
    torch.manual_seed(0)
    modules: dict[str, nn.Module] = {
        "foveate": foveate.attention(mechanism, channels),
        "plain": plain(mechanism, channels),
    }
    if mechanism in TIMM_NAMES:
        modules["timm"] = timm_attention(mechanism, channels)
    return modules


def memory_format(layout: str) -> torch.memory_format:
    """Return torch's name of "NCHW" or "channels_last"."""
    return torch.channels_last if layout == "channels_last" else torch.contiguous_format


def feature_map(shape: Shape, layout: str, dtype: str = "float32", device: str = "cpu", seed: int = 0) -> Tensor:
    """Return normally distributed numbers (N, C, H, W), the same for the same arguments."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.to(device, getattr(torch, dtype)).contiguous(memory_format=memory_format(layout))


def prepare(module: nn.Module, x: Tensor, layout: str, measure: str) -> nn.Module:
    """Move a module to the device, dtype, layout and mode in which it is timed."""
    module = module.to(x.device, x.dtype).train(measure == "training")
    return module.to(memory_format=memory_format(layout))  # pyright: ignore[reportCallIssue]


def compiled(module: nn.Module) -> nn.Module:
    """Return the module under `torch.compile` with static shapes."""
    return torch.compile(module, dynamic=False)  # pyright: ignore[reportReturnType]


def add_compiled(
    calls: dict[str, Call], failed: dict[str, str], name: str, module: nn.Module, x: Tensor, measure: str
) -> None:
    """Add the call of a module under `torch.compile` to the calls, or the reason to those that failed."""
    name = f"{name} compiled"
    try:
        faster = call(compiled(module), x, measure)
        faster()
        calls[name] = faster
    except Exception as error:  # record a compiler failure and continue
        failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def call(module: nn.Module, x: Tensor, measure: str) -> Call:
    """Return the call to time: a forward on x, or a training step on x that computes every gradient anew."""
    if measure == "forward":
        return lambda: module(x)
    dy = torch.randn_like(module(x).detach())
    leaves = [x, *module.parameters()]

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        module(x).backward(dy)

    return step


def read(x: Tensor) -> Call:
    """Return a call that only reads x: it sums the memory of x as float32, in memory order."""
    numbers: Any = x.detach().as_strided((x.numel(),), (1,)).view(torch.float32)
    return numbers.sum


def rewrite(x: Tensor) -> Call:
    """Return a call that writes the same values to x again, as the layer before it would."""
    same = x.detach()
    return lambda: same.mul_(1)
