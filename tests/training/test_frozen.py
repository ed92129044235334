"""A frozen host is unchanged after any training, so host and adapter together give the trained model."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from foveate.surgery import attach, freeze_host, host_state_dict, load_adapter, save_adapter
from foveate.training import FitOptions, evaluate, fit
from training.toy import equal, state_of, toy_data, toy_model

SHAPE = (1, 1, 8, 8)


@pytest.mark.parametrize("changed", [{}, {"ema": 0.9}, {"amp": True}, {"optimizer": "sgd", "ema": 0.5}], ids=str)
@pytest.mark.parametrize("where", ["0", "1"], ids=["at a convolution", "at a norm"])
def test_the_host_and_the_adapter_are_the_model(changed: dict[str, object], where: str, tmp_path: Path) -> None:
    host, data = toy_model(last=torch.nn.Dropout()), toy_data()
    model = copy.deepcopy(host)
    attach(model, "cbam", where, example=SHAPE, reduction=2)
    freeze_host(model)
    gates = state_of(model)
    fit(model, data, dataclasses.replace(FitOptions(epochs=2, batch=16, lr=0.02), **changed))  # type: ignore[arg-type]
    assert equal(dict(host_state_dict(model)), state_of(host))
    learnt = {name.rpartition(".")[2] for name, value in state_of(model).items() if not torch.equal(value, gates[name])}
    assert {"running_mean", "running_var", "weight", "bias"} <= learnt
    save_adapter(model, tmp_path / "adapter.safetensors")
    load_adapter(host, tmp_path / "adapter.safetensors", example=SHAPE)
    assert equal(state_of(host), state_of(model))
    host.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    assert evaluate(host, data.test) == evaluate(model, data.test)
