"""The published networks in the data folder `trained`: rebuilt, with their weights, and what their own code gave."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import foveate
from foveate.bind.torch.attention import Attention
from foveate.torch_utils.names import CHILD
from tolerance import distance
from trained import minifasnet
from trained.eaglesr import EagleSR
from trained.ecas import ECAS
from trained.rlcsr import RLCSR
from trained.smfanet import SMFANet
from trained.twinlitenet import TwinLiteNet

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}
SE_SITES = [f"conv_{stage}.model.{block}.project.bn" for stage, block in ((3, 3), (4, 5), (5, 1))]


@dataclass(frozen=True)
class Network:
    """A published network.

    `blocks` maps the names of the attention blocks with data to ours, `renamed` the start of other names to that of
    ours; `unused` lists layers in the file that the network does not run; `left_out` counts the parameters of these and
    of the lengths that weight norm has for the attention.
    """

    file: str
    build: Callable[[], nn.Module]
    parameters: int
    blocks: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    left_out: int = 0

    def weights(self, shared: Path) -> dict[str, Tensor]:
        """Return the weights of the file under the names of our network."""
        saved = torch.load(shared / "data/trained" / self.file, map_location="cpu", weights_only=True)
        saved = {key.removeprefix("module."): value for key, value in saved.get("params", saved).items()}
        return {self._name(key): value for key, value in saved.items() if not key.startswith(self.unused)}

    def loaded(self, shared: Path, dtype: torch.dtype) -> nn.Module:
        """Return the network with its published weights, in eval mode."""
        net = self.build().to(dtype).eval()
        load(net, self.weights(shared))
        return net

    def _name(self, key: str) -> str:
        start = next((start for start in self.renamed if key.startswith(start)), "")
        return self.renamed.get(start, "") + key.removeprefix(start)


def v1se() -> nn.Module:
    """Return MiniFASNet V1SE: its host, with SE attached where the published network has it."""
    net = minifasnet.v1se()
    foveate.attach(net, "se", SE_SITES, example=(3, 80, 80), start="paper", reduction=4, bias=False, norm=True)
    return net


def load(net: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Load all weights: those of attention by `load_published`, the others, by their names, by torch."""
    rest = dict(saved)
    for path, module in net.named_modules():
        if isinstance(module, Attention):
            own = {key: rest.pop(key) for key in saved if key.startswith(f"{path}.")}
            foveate.load_published(module, own)
            rest |= {f"{path}.{key}": value for key, value in module.state_dict().items()}
    net.load_state_dict(rest, strict=True)


NETWORKS: dict[str, Network] = {
    "minifasnet_v1se": Network(
        "minifasnet_v1se/4_0_0_80x80_MiniFASNetV1SE.pth",
        v1se,
        433_586,
        {"conv_5.model.1.se_module": f"{SE_SITES[2]}.{CHILD}"},
        {f"{site.removesuffix('project.bn')}se_module": f"{site}.{CHILD}" for site in SE_SITES},
    ),
    "minifasnet_v2": Network("minifasnet_v2/2.7_80x80_MiniFASNetV2.pth", minifasnet.v2, 434_560),
    "smfanet_x2": Network("smfanet_x2/SMFANet_DF2K_100w_x2SR.pth", SMFANet, 185_628, {"feats.0.smfa": "feats.0.smfa"}),
    "twinlitenet": Network(
        "twinlitenet/best.pth", TwinLiteNet, 439_633, {"encoder.sa": "encoder.sa", "encoder.sc": "encoder.sc"}
    ),
    "ecas_x4": Network(
        "ecas_x4/team52_ECAS.pth",
        ECAS,
        301_413,
        {"block_1.gct1": "block_1.gct1", "eca": "eca"},
        {"conv.": "eca.attention.conv."},
    ),
    "eaglesr_x4": Network("eaglesr_x4/team33_EagleSR.pth", EagleSR, 352_400, {"B1.cca": "B1.cca", "B1.esa": "B1.esa"}),
    "rlcsr_x4": Network(
        "rlcsr_x4/team42_rlcsr.pt",
        RLCSR,
        361_562,
        {"B1.esa": "B1.esa", "BAM": "BAM"},
        {
            "conv1_": "head.conv1_",
            **{f"convl{n}{n}.": f"layers.convl{n}{n}." for n in (1, 2, 3)},
            **{f"convl{n}.": f"join.convl{n}." for n in (1, 2, 3)},
        },
        ("LR_conv.", "last_conv.", "last.", "outconv.", "res_scale.", "in_scale."),
        37_159 + 6 * 80,
    ),
}


@cache
def network(name: str, shared: Path, dtype: torch.dtype) -> nn.Module:
    """Return a published network, built once; tests that change it change it back."""
    return NETWORKS[name].loaded(shared, dtype)


@cache
def data(name: str, shared: Path) -> dict[str, Tensor]:
    """Return the inputs of a network, and what its own code computed."""
    with np.load(shared / "data/trained" / name / "io.npz") as content:
        return {key: torch.from_numpy(content[key]) for key in content.files if key != "meta"}


def error(name: str, shared: Path, at: int = 0, dtype: torch.dtype = torch.float64) -> float:
    """Return how far the output for an input is from the published one, relative to the greatest value of that."""
    known = data(name, shared)
    with torch.no_grad():
        y = network(name, shared, dtype)(known[f"x/{at}"].to(dtype))
    return distance(y, known[f"y{torch.finfo(dtype).bits}/{at}"])


def block_errors(name: str, shared: Path) -> Iterator[tuple[str, float]]:
    """Yield the same for each attention block with data."""
    known = data(name, shared)
    for theirs, ours in NETWORKS[name].blocks.items():
        with torch.no_grad():
            y: Any = network(name, shared, torch.float64).get_submodule(ours)(known[f"attention/{theirs}/x"].double())
        yield theirs, distance(y, known[f"attention/{theirs}/y"])
