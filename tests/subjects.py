"""Mechanisms with options, put to the test: their modules with random weights, and inputs that they take."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import foveate
from foveate.bind.torch.attention import Attention
from foveate.errors import ReductionWarning, UsageError
from foveate.facts import facts
from foveate.mechanisms import create
from foveate.parts import Replace, flat
from foveate.spec import Mechanism, check_identity, kept, output_shape
from last_layers import last_layers


@dataclass(frozen=True)
class Subject:
    """A mechanism with options, to be put to the test.

    It is built at 8 channels with default options, or as its TOML says, so that it keeps hidden units. It gets a second
    input where its options ask for one.
    """

    mechanism: str
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1
    width: int | None = None

    def __str__(self) -> str:
        return "-".join([self.mechanism, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def made(self) -> Mechanism:
        """The mechanism with the options of its TOML for tests, and these."""
        return create(self.mechanism, **{**self._test.get("options", {}), **self.options})

    @property
    def channels(self) -> int:
        """The channels of its maps."""
        return self.width or self._test.get("channels", 8)

    def fits(self) -> bool:
        """Return whether the options work for its channels."""
        try:
            with warnings.catch_warnings(action="ignore", category=ReductionWarning):
                return bool(self.made.parts(self.channels))
        except UsageError:
            return False

    def why_no_identity(self) -> str:
        """Return why the mechanism has no identity start; "" where it has one."""
        try:
            check_identity(self.made, self.made.parts(self.channels))
        except UsageError as error:
            return error.received
        return ""

    @property
    def _test(self) -> Mapping[str, Any]:
        return facts(self.mechanism).get("test", {})

    def module(self, *, start: Any = "paper", dtype: torch.dtype = torch.float32) -> Attention:
        """Return the module with random weights, biases and statistics; only what the identity start sets to 0 is 0."""
        if start == "identity" and (reason := self.why_no_identity()):
            pytest.skip(f"no identity start: {reason}")
        torch.manual_seed(7)
        module = foveate.attention(self.made, self.channels, start=start, dtype=torch.float64)
        with torch.no_grad():
            for tensor in module.state_dict().values():
                if tensor.ndim == 1:
                    tensor.uniform_(0.5, 1.5)
                elif tensor.ndim:
                    tensor.normal_(0, tensor[0].numel() ** -0.5)
            for layer in last_layers(module) if start == "identity" else ():
                for parameter in layer.parameters():
                    parameter.zero_()
        return module.to(dtype)

    @property
    def smallest(self) -> int:
        """The smallest height and width of its maps."""
        return facts(self.mechanism).get("smallest", 1)

    @property
    def smallest_open(self) -> int:
        """The smallest height and width of maps for a graph of open sizes: axes of size 1 need another graph."""
        return self._test.get("open", self.smallest)

    def inputs(
        self,
        n: int = 2,
        h: int = 6,
        w: int = 7,
        *,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        learnt: bool = False,
    ) -> list[Tensor]:
        """Return random inputs, at least the smallest batch; h and w are 1 for the smallest map."""
        generator = torch.Generator().manual_seed(seed)
        n, more = max(n, self.batch, self._test.get("batch", 1)), self.smallest - 1
        h, w = self.made.options().get("size") or (h + more, w + more)  # "size": its maps have only one
        replaced = [part for part in flat(self.made.parts(self.channels)).values() if isinstance(part, Replace)]
        stride = replaced[0].stride if replaced else 1
        shapes = [(n, self.channels, stride * h, stride * w)]
        context = self.made.options().get("context_channels")
        shapes += [] if context is None else [(n, context, 2, 3)]
        drawn = [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in shapes]
        return [x.requires_grad_(learnt) for x in drawn]

    def shape(self, inputs: list[Tensor]) -> tuple[int | None, ...]:
        """Return the shape of the output."""
        return output_shape(self.made, [x.shape for x in inputs])

    def kept(self, inputs: list[Tensor]) -> Tensor:
        """Return the input whose height and width the output has."""
        return kept(self.made, inputs)
