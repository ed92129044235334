"""The contract of every mechanism with kernels where they fit; tests/mechanisms/ tests the plain operations."""

import pytest

from contract import Costs, Graphs, IdentityStart, Numbers, Tools
from kernels.cases import DEFAULTS
from subjects import Subject

pytestmark = pytest.mark.usefixtures("built")

SUBJECT = pytest.mark.parametrize(
    "subject", [*(Subject(one.mechanism) for one in DEFAULTS), Subject("residual_cbam")], ids=str
)


@SUBJECT
class TestContract(Numbers, IdentityStart, Tools, Costs):
    """Every mechanism that has a kernel."""


@pytest.mark.slow  # test_compile and test_tracing test kernels in graphs
@SUBJECT
class TestGraphs(Graphs):
    """The same, compiled and exported."""
