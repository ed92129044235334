"""A mechanism as a native `nn.Module` with ordinary convolution and batch-norm children."""

import inspect
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from foveate.bind.torch.ops import OPS, POSITIONS, TorchOps, as_2d, from_2d
from foveate.bind.torch.parts import TorchParts
from foveate.checks import check_channels, check_choice, check_names
from foveate.errors import UsageError
from foveate.kernels import dispatch
from foveate.mechanisms import built_in, make, planar, require
from foveate.parts import Start
from foveate.spec import Mechanism, check_identity, first_of, kept, layout


class Attention(nn.Module):
    """A bound mechanism, (N, C, H, W) -> (N, C, H, W). `foveate.torch` has one subclass for each built-in mechanism.

    Mechanisms that need no height and width also take (N, C, L) and (N, C, D, H, W).
    """

    kind: ClassVar[type[Mechanism]] = Mechanism
    inplace = False
    """Whether a kernel may overwrite the output of the site that this is attached to, where no other code holds it."""
    follows_site = False  # set where it is attached: the site may be pruned, and some weights fit any channels
    rank: int | None = None  # set where it is attached: the only number of axes of x
    vocabulary: tuple[TorchOps, TorchOps] = OPS, POSITIONS  # for maps and for other ranks; recording sets its own

    def __init__(
        self,
        mechanism: Mechanism,
        channels: int,
        *,
        start: Start = "paper",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_channels(channels)
        check_choice("start", start, ("paper", "identity"))
        self.mechanism = mechanism
        self.start: Start = start
        parts = self.mechanism.parts(channels)
        self._first = first_of(self.mechanism, channels)
        self._built_for = channels
        self._ranks = (4, 3, 5) if self.mechanism.any_rank(channels) else (4,)
        if start == "identity":
            check_identity(self.mechanism, parts)
        check_names(parts, self)
        for name, layer in TorchParts(start, device=device, dtype=dtype).make(parts).items():
            self.add_module(name, layer)

    @property
    def takes_context(self) -> bool:
        """Whether the mechanism takes a second map."""
        return type(self.mechanism).takes_context()

    @property
    def channels(self) -> int:
        """The channels of x: those that the weights take, which pruning may have changed."""
        layer: Any = self
        for name in self._first:
            layer = layer._modules[name]
        if layer is self:
            return self._built_for
        weight = layer._parameters.get("weight")  # `layer.weight` would take five times as long
        shape = (layer.weight if weight is None else weight).shape
        return shape[0] if len(shape) == 1 else shape[1] * getattr(layer, "groups", 1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the mechanism to x (N, C, H, W), and to a context (N, D, H', W') where it takes one.

        A mechanism that needs no height and width also takes (N, C, L) and (N, C, D, H, W). Raises UsageError for
        another rank, for channels that do not fit the weights, and for a wrong context.
        """
        self._check(x, context)
        return self._compute(x) if context is None else self._compute(x, context)

    def overwrite(self, x: Tensor) -> Tensor:
        """Apply the mechanism and possibly overwrite x with the result; the caller owns x. Runs no hooks."""
        self._check(x)
        return self._compute(x, inplace=True)

    def why_no_kernel(self, x: Tensor) -> str | None:
        """Return why no kernel of Foveate would run on maps x, None where one would; see `foveate.kernels`."""
        return dispatch.why_not(self.mechanism, self, as_2d(x, x.dim()))

    def _compute(self, *maps: Tensor, inplace: bool = False) -> Tensor:
        planar_ops, position_ops = self.vocabulary
        if maps[0].dim() == 4 and (len(maps) == 1 or maps[1].dim() == 4):  # the short way for one map
            return planar_ops.apply(self.mechanism, self, *maps, inplace=inplace)
        try:
            flat = [as_2d(each, each.dim()) for each in maps]
            y = position_ops.apply(self.mechanism, self, *flat, inplace=inplace)
        except AttributeError as error:
            if error.obj is position_ops:
                raise planar(self.mechanism, self.channels, _shown(maps[0])) from None
            raise
        like = kept(self.mechanism, maps)
        return from_2d(y, like, like.dim())

    def _check(self, x: Tensor, context: Tensor | None = None) -> None:
        if context is None and type(x) is Tensor and x.dim() == 4 == (self.rank or 4) and x.shape[1] == self.channels:
            return  # the common case, without what the others cost
        any_channels, ranks = self.follows_site and not self._first, (self.rank,) if self.rank else self._ranks
        if isinstance(x, Tensor) and 3 <= x.dim() <= 5 and x.dim() not in self._ranks:
            raise planar(self.mechanism, self.channels, _shown(x))
        if not isinstance(x, Tensor) or x.dim() not in ranks or not (any_channels or x.shape[1] == self.channels):
            raise UsageError(
                expected=f"a feature map {' or '.join(layout(rank, self.channels) for rank in ranks)}",
                received=_shown(x),
                do=f"build the module with {self._get_name()}(C) for a map of C channels",
            )
        if context is None:
            return
        if not self.takes_context:
            do = "leave it out, or use a mechanism that takes one, such as CrossAttention"
            raise UsageError(expected=f"one input for {self._get_name()}", received=f"{_shown(context)} too", do=do)
        if not isinstance(context, Tensor) or context.dim() not in self._ranks or context.shape[0] != x.shape[0]:
            do = "pass a map such as (N, D, H, W) with as many samples as the first input"
            raise UsageError(expected="a context (N, D, H, W)", received=_shown(context), do=do)

    def _get_name(self) -> str:
        return type(self.mechanism).__name__

    def extra_repr(self) -> str:
        """Describe the module in its repr."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.mechanism.options().items())
        return ", ".join(filter(None, [str(self.channels), options, f"start={self.start!r}"]))


def bind(kind: type[Mechanism], module: str) -> type[Attention]:
    """Return the `Attention` subclass of a mechanism, with the mechanism's class name and the given `__module__`."""

    def build(
        self: Attention,
        channels: int,
        *,
        start: Start = "paper",
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        Attention.__init__(self, make(kind, **options), channels, start=start, device=device, dtype=dtype)

    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(kind).parameters.values()]
    _, channels, *common, _ = inspect.signature(build).parameters.values()
    about = {"kind": kind, "__init__": build, "__doc__": kind.__doc__, "__module__": module}
    return type(kind.__name__, (Attention,), {**about, "__signature__": inspect.Signature([channels, *own, *common])})


def attention(
    mechanism: str | Mechanism | type[Mechanism],
    channels: int,
    *,
    start: Start = "paper",
    device: Any = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Attention:
    """Return a mechanism for maps (N, channels, H, W) as an `nn.Module`.

    `mechanism` is a name, a `Mechanism` or its class, also one of your own. Raises UsageError for a name, an option or
    a value that does not exist.
    """
    found = require(mechanism, **options)
    bound = classes().get(type(found).__name__)
    if bound is None or bound.kind is not type(found):
        return Attention(found, channels, start=start, device=device, dtype=dtype)
    build: Any = bound  # its constructor takes the options in the place of the mechanism
    return build(channels, start=start, device=device, dtype=dtype, **found.options())


@cache
def classes() -> dict[str, type[Attention]]:
    """Return the bound class of every built-in mechanism, by class name: the classes of `foveate.torch`."""
    return {kind.__name__: bind(kind, "foveate.torch") for kind in built_in().values()}


def _shown(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
