"""SimAM: one gate per channel and position from how far a value is from its channel's mean, without parameters."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_number
from foveate.ops import Array, Bound, Ops
from foveate.parts import Gate, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class SimAM(Mechanism):
    """y = x * sigmoid(d^2 / (4 (var_hw(x) + lambda)) + 1/2) with d = x - mean_hw(x); (N, C, H, W) -> (N, C, H, W).

    The variance is divided by H W - 1, as in the released code. `e_lambda` is lambda; the authors train on ImageNet
    with 0.1. On a map of one position d and the variance are 0.
    """

    e_lambda: float = 1e-4

    name: ClassVar[str] = "simam"
    paper: ClassVar[str] = (
        "Yang et al., SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks, ICML 2021, "
        "https://proceedings.mlr.press/v139/yang21o/yang21o.pdf"
    )

    def __post_init__(self):
        check_number("e_lambda", self.e_lambda, above=0)

    @property
    def no_identity(self) -> str:
        return "it has no weights that could begin at 0"

    def parts(self, channels: int) -> Parts:
        return {"gate": Gate("full")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        d = x - F.mean(x, F.hw)
        squares = d**2
        variance = F.variance(x, F.hw, unbiased=True, squares=squares)
        return p.gate(x, squares / (4 * (variance + self.e_lambda)) + 0.5)
