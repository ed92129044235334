"""The contract of every mechanism once more, by kernels where they fit; tests/mechanisms/ puts the plain operations to it."""

import pytest

from contract import Contract, Subject
from kernels.cases import DEFAULTS

pytestmark = pytest.mark.usefixtures("built")


@pytest.mark.parametrize("subject", [*(Subject(one.mechanism) for one in DEFAULTS), Subject("residual_cbam")], ids=str)
class TestContract(Contract):
    """Every mechanism that has a kernel."""
