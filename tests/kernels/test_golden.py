"""Compare the kernels with the authors' own numbers."""

import pytest
import torch

from foveate import kernels
from foveate.facts import facts
from golden_data import Case, cases, disagreements
from kernels.cases import watched

pytestmark = [pytest.mark.usefixtures("built"), pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")]

PLAIN = (
    "four_pools",
    "l1",
    "l1_after_relu",
    "sse",
    "theta_minus_e2",
    "theta_minus_e4",
    "theta_plus",
)  # no kernel has them
CASES = [case for case in cases() if facts(case.config.mechanism).get("kernel") and case.config.id not in PLAIN]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_kernel_computes_what_the_authors_compute(case: Case) -> None:
    module = case.config.module(torch.float32)
    with kernels.using("cpu"), watched() as seen:
        assert disagreements(case, module, torch.float32) == []
    assert {name.split()[1] for name in seen} == {"full", "backward"}
