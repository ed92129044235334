import pytest
import torch

import foveate
from foveate.errors import ReductionWarning
from foveate.mechanisms import names
from golden_data import FOLDER, Case, Config, cases, configs, described, disagreements, oracle_errors
from last_layers import wake

CONFIGS = configs()
CASES = cases()
pytestmark = pytest.mark.filterwarnings(
    "ignore::foveate.errors.ReductionWarning"
)  # a listing keeps at least 1 unit, as we do
LOADED = [config for config in CONFIGS if not config.no_hidden_unit]


def test_every_mechanism_has_golden_data() -> None:
    assert {config.mechanism for config in LOADED} == set(names())


def test_every_golden_configuration_is_used() -> None:
    files = {*FOLDER.glob("*.npz"), *(config.path for config in CONFIGS)}
    assert {(config.path, config.id) for config in CONFIGS} == {
        (path, config["id"]) for path in files for config in described(path)
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.reliability(2)
def test_torch_computes_what_the_authors_compute(case: Case, dtype: torch.dtype) -> None:
    assert disagreements(case, case.config.module(dtype), dtype) == []


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.reliability(2)
def test_the_oracle_computes_what_the_authors_compute(case: Case) -> None:
    assert {name: error for name, error in oracle_errors(case) if not error <= 1e-9} == {}


@pytest.mark.parametrize("config", LOADED, ids=str)
def test_parameters_are_the_published_count(config: Config) -> None:
    assert sum(parameter.numel() for parameter in config.module().parameters()) == config.meta["params"]


@pytest.mark.parametrize("config", [config for config in CONFIGS if config.no_hidden_unit], ids=str)
def test_one_hidden_unit_is_kept_where_the_reference_has_none(config: Config) -> None:
    with pytest.warns(ReductionWarning, match="using 1"):
        module = foveate.attention(config.mechanism, config.channels, **config.options)
    wake(module)
    x = torch.randn(4, config.channels, 5, 6)
    assert (module(x) / x).std() > 1e-4
