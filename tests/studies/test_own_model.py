"""A study of the user's own network, given from Python and by name; the processes of its trials import it."""

import runpy
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from foveate.errors import UsageError
from foveate.experiment import run_folder as runs
from foveate.studies import run, run_study
from foveate.studies.costs import measure_costs
from foveate.studies.run import exit_code
from foveate.studies.study_folder import read_json
from studies.tiny import InProcess, tiny

NET = """
import torch
from torch import nn

class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
    def forward(self, x):
        return torch.relu(x + self.norm(self.conv(x)))

def make(classes, channels):
    features = nn.Conv2d(channels, 16, 3, 2), Residual(16), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*features, nn.Linear(16, classes))
"""
TINY: dict[str, Any] = {"imgsz": 24, "seeds": 1, "name": "own"}


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "measure_costs", partial(measure_costs, seconds=0.0))
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def imported(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.delitem(sys.modules, "net", raising=False)
    import net  # pyright: ignore[reportMissingImports]

    return net.make


def test_a_study_takes_a_callable_and_is_resumed_by_its_name(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_study(tiny(net.parent / "runs", **TINY), model=imported(net, monkeypatch))
    assert folder is not None
    assert exit_code(folder) == 0
    results, args = read_json(folder / "results.json"), yaml.safe_load((folder / "args.yaml").read_bytes())
    assert results["model"]["name"] == "net.py:make"
    assert args["model"] == f"{net}:make"
    assert [arm["sites"] for arm in results["arms"]] == [0, 1]
    assert results["command"].startswith("python ")
    plain, se = (
        load_file(folder / "trials" / slug / "weights" / "best.safetensors")
        for slug in ("none__host__seed0", "se-identity__residual__seed0")
    )
    assert plain.keys() < se.keys()
    found = runs.load_model(runs.read_run(folder / "trials" / "se-identity__residual__seed0")).state_dict()
    assert all(torch.equal(found[name], value) for name, value in se.items())
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")}
    resumed = {**TINY, "resume": True, "model": "net.py:make"}
    assert run_study(tiny(net.parent / "runs", **resumed)) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")} == before, "nothing is repeated"
    net.write_text(NET + "# changed\n")
    with pytest.raises(UsageError, match="model's content"):
        run_study(tiny(net.parent / "runs", **resumed))


def test_a_file_that_changes_while_the_study_runs_ends_it(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Changes(run.Progress):
        def trial_done(self, slug: str, seed: int, status: str, trial: dict[str, Any]) -> None:
            net.write_text(NET + "# changed\n")

    with pytest.raises(UsageError, match="as it was when the study began"):
        run_study(tiny(net.parent / "runs", **TINY, model="net.py:make"), progress=Changes(), engine=InProcess())


@pytest.mark.parametrize(
    ("weights", "refused"),
    [("torch.randn(classes, 24 * 24)", False), ("torch.tensor(numpy.random.randn(classes, 24 * 24)).float()", True)],
)
def test_a_function_that_gives_other_weights_for_the_same_seed_is_refused(
    net: Path, weights: str, refused: bool
) -> None:
    """The arms would not start from the same host."""
    net.write_text(
        "import numpy, torch\nfrom torch import nn\n"
        "def make(classes):\n"
        "    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(24 * 24, classes))\n"
        f"    model[2].weight = nn.Parameter({weights})\n"
        "    return model\n"
    )
    asked = tiny(net.parent / "runs", **TINY, model="net.py:make", where=("0",), attention=("eca",), dry_run=True)
    if not refused:
        assert run_study(asked) is None
        return
    with pytest.raises(UsageError, match=r"the same network from net\.py:make for the same seed"):
        run_study(asked)


@pytest.mark.parametrize("guarded", [False, True])
def test_a_script_that_runs_a_study_at_import_is_refused_with_the_fix(net: Path, guarded: bool) -> None:
    call = "run_study(tiny('runs', dry_run=True, imgsz=24), model=make)\n"
    guard = "if __name__ == '__main__': " if guarded else ""
    net.write_text(f"{NET}from studies.tiny import tiny; from foveate.studies import run_study\n{guard}{call}")
    fix = 'put that call under: if __name__ == "__main__":'
    with nullcontext() if guarded else pytest.raises(UsageError, match=fix):
        runpy.run_path(str(net), run_name="__main__")


def test_a_lambda_is_refused_before_anything_is_written(net: Path) -> None:
    with pytest.raises(UsageError, match="which the processes of a study can import"):
        run_study(tiny(net.parent / "runs", **TINY), model=lambda classes: nn.Linear(1, classes))
    assert not (net.parent / "runs").exists()


def test_the_seed_decides_the_first_weights_as_for_any_host(net: Path) -> None:
    from foveate.experiment.data import open_study_data
    from foveate.experiment.model import build_host

    asked = tiny(net.parent / "runs", **TINY, model="net.py:make").resolve()
    described = open_study_data(asked).describe()
    state = torch.get_rng_state()
    one, again, other = (build_host(asked, described, seed)[0].weight for seed in (0, 0, 1))  # type: ignore[index]
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
