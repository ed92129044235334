import pytest
import torch
from benchmarks.gpu import goals, met
from benchmarks.options import Options

from benchmarks import kernels


@pytest.mark.parametrize(
    ("shape", "item", "mechanism", "measure", "expected"),
    [
        ((256, 256, 56, 56), 2, "se", "forward", {"most": 1.15}),  # 1.6 MB, and a cluster holds 1.86 MB
        ((256, 256, 56, 56), 4, "se", "forward", {"most": 1.4}),
        ((16, 512, 28, 28), 4, "cbam", "forward", {"most": 1.15, "times_as_fast": 1.5}),
        ((256, 256, 56, 56), 4, "coordinate", "training", {"times_as_fast": 1.5}),
        ((8, 256, 56, 56), 2, "eca", "training", {}),
    ],
)
def test_the_goals_of_a_cell(
    shape: tuple[int, ...], item: int, mechanism: str, measure: str, expected: dict[str, float]
) -> None:
    assert goals(shape, item, mechanism, measure) == expected


def test_whether_goals_are_met() -> None:
    goal = {"most": 1.15, "times_as_fast": 1.5}
    calls = {"clone": {"ratio": 1.0}, "foveate": {"ratio": 1.2}, "plain compiled": {"ratio": 1.8}}
    assert met(goal, calls) == {"most": False, "times_as_fast": True}
    calls["foveate"]["ratio"] = 1.21
    assert met(goal, calls) == {"most": False, "times_as_fast": False}
    calls["foveate"]["ratio"] = 1.15
    assert met({"most": 1.15}, calls) == {"most": True}
    del calls["plain compiled"]
    assert met(goal, calls) == {"most": True, "times_as_fast": None}
    assert met(goal, {"clone": {"ratio": 1.0}}) == {"most": None, "times_as_fast": None}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured() -> None:
    with pytest.raises(SystemExit, match="Expected a GPU for --device cuda"):
        next(kernels.measure(Options(device="cuda")))
