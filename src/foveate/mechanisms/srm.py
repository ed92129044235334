"""SRM: one gate per channel from the mean and the standard deviation of the channel alone."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism

EPS = 1e-5


@dataclass(frozen=True)
class SRM(Mechanism):
    """y = x * sigmoid(norm(w1 mean_hw(x) + w2 std_hw(x))), per channel; (N, C, H, W) -> (N, C, H, W).

    The variance is divided by H W - 1, as in the released code; the paper divides by H W. On a map of one position it
    is 0. In training the batch norm needs more than one sample. The layer reads mean and deviation as two rows, as its
    published weights do, so the maps of 1-D and 3-D networks do not fit.
    """

    name: ClassVar[str] = "srm"
    paper: ClassVar[str] = (
        "Lee et al., SRM: A Style-based Recalibration Module for Convolutional Neural Networks, ICCV 2019, "
        "arXiv:1903.10829, equations 1 to 6"
    )

    def parts(self, channels: int) -> Parts:
        fc = Conv(channels, channels, (2, 1), bias=False, groups=channels, padding="valid")
        return {"fc": fc, "norm": Norm(channels, last=True), "gate": Gate("channel")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        mean = F.mean(x, F.hw)
        deviation = F.sqrt(F.variance(x, F.hw, unbiased=True, mean=mean), EPS)
        return p.gate(x, p.norm(p.fc(F.concat([mean, deviation], F.h))))
