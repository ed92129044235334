import pytest

from contract import Contract, Definition, Numbers
from foveate.mechanisms import names
from golden_data import configs
from subjects import Subject

DEFAULTS = [*map(Subject, names()), Subject("cross", {"context_channels": 6, "dim": 4})]
OTHERS = [  # without golden data: in the paper, and in a published network
    Subject("cbam", {"order": "spatial-channel"}),
    Subject("se", {"bias": False, "norm": True}, batch=2),
]
GOLDEN = [
    usual if usual.fits() else Subject(config.mechanism, config.options, width=config.channels)
    for config in configs()
    if config.options
    for usual in [Subject(config.mechanism, config.options)]
]


@pytest.mark.parametrize("subject", DEFAULTS, ids=str)
class TestContract(Contract):
    """Every mechanism with its default options."""


@pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
@pytest.mark.parametrize("subject", list({str(subject): subject for subject in GOLDEN + OTHERS}.values()), ids=str)
class TestNumbersOfOptions(Definition, Numbers):
    """Every setting with golden data, and other settings of the papers."""
