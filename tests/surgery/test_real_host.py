"""A trained host from another project: its outputs stay equal, and its checkpoint still loads."""

from pathlib import Path

import pytest
import torch

from foveate.models import build
from foveate.surgery import attach, detach, host_state_dict, load_host_state_dict
from representatives import REPRESENTATIVES
from surgery import hosts

CHECKPOINT = "data/resnet20_cifar10/resnet20-12fca82f.th"


@pytest.mark.parametrize("name", REPRESENTATIVES)
@pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
def test_attaching_leaves_the_answers_of_a_trained_host_equal(name: str, shared: Path) -> None:
    model, images = build("resnet20", 10, weights=shared / CHECKPOINT).eval(), hosts.image(8, 3, 32, 32)
    answers = hosts.run(model, images)
    planned = attach(model, name, example=(1, 3, 32, 32))
    assert [site.name for site in planned.sites] == [
        f"layer{stage}.{block}.bn2" for stage in (1, 2, 3) for block in (0, 1, 2)
    ]
    assert torch.equal(hosts.run(model, images), answers)
    content = torch.load(shared / CHECKPOINT, map_location="cpu", weights_only=True)["state_dict"]
    content = {key.removeprefix("module."): value for key, value in content.items()}
    assert [key for key in host_state_dict(model) if "num_batches_tracked" not in key] == list(content)
    load_host_state_dict(model, content)
    assert torch.equal(hosts.run(model, images), answers)
    detach(model)
    assert torch.equal(hosts.run(model, images), answers)
