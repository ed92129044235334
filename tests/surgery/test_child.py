"""A site has attention if it has the child and its hook; one without the other is an error and changes nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from foveate.errors import UsageError
from foveate.surgery import (
    attach,
    attention_parameters,
    detach,
    freeze_host,
    host_state_dict,
    load_host_state_dict,
    save_adapter,
)
from surgery import hosts

EVERY = [
    lambda model: attach(model, "se", example=hosts.SHAPE),
    lambda model: save_adapter(model, "never-written"),
    detach,
    freeze_host,
    attention_parameters,
    host_state_dict,
    lambda model: load_host_state_dict(model, {}),
]


@pytest.mark.parametrize("act", EVERY)
def test_a_child_of_the_hosts_own_is_no_attention(act: Callable[[Any], Any]) -> None:
    model = hosts.ResNet()
    model.layer1.add_module(hosts.CHILD, nn.Identity())  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    seen = hosts.anatomy(model)
    with pytest.raises(UsageError, match="'layer1', which no hook of Foveate runs\nDo: rename the host"):
        act(model)
    assert hosts.anatomy(model) == seen


@pytest.mark.parametrize("act", EVERY)
def test_what_is_no_model_is_refused(act: Callable[[Any], Any]) -> None:
    with pytest.raises(UsageError, match=r"Expected a torch\.nn\.Module\nReceived a str"):
        act("resnet18")


def test_replacing_a_site_is_noticed_where_it_took_the_attention_out_of_the_run() -> None:
    model = hosts.ResNet()
    attach(model, "cbam", example=hosts.SHAPE, reduction=2)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    with pytest.raises(UsageError, match="convert_sync_batchnorm"):
        attention_parameters(model)
