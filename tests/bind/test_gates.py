"""Without gradients a full gate gives its memory to the product; nothing else may be overwritten."""

from typing import Any

import pytest
import torch
from torch import Tensor

from foveate.bind.torch.parts import Gate

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def inputs(layout: torch.memory_format = torch.contiguous_format) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x, logits = torch.randn(2, 2, 3, 4, 5)
    return x, logits.contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "hard_sigmoid", "linear"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_inputs_keep_their_values_and_the_output_its_layout(
    activation: str, scale: float, layout: torch.memory_format
) -> None:
    gate, (x, logits) = Gate("full", scale, activation), inputs(layout)  # pyright: ignore[reportArgumentType]
    wanted, before = gate(x, logits), (x.clone(), logits.clone())
    with torch.no_grad():
        found = gate(x, logits)
    assert torch.equal(found, wanted)
    assert found.stride() == wanted.stride()
    assert torch.equal(x, before[0])
    assert torch.equal(logits, before[1])


def test_the_product_takes_the_memory_of_the_gate() -> None:
    gate, (x, logits) = Gate("full"), inputs()
    with torch.no_grad():
        made = torch.sigmoid(logits)
        gate.gate = lambda logits: made
        assert gate(x, logits).data_ptr() == made.data_ptr()
        assert gate(x[:, :, :1], logits).data_ptr() != made.data_ptr()


def test_the_product_of_other_types_is_promoted() -> None:
    gate, (x, logits) = Gate("full"), inputs()
    with torch.no_grad():
        assert gate(x, logits.bfloat16()).dtype is torch.float32


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tracing itself is deprecated
def test_a_gate_traced_without_gradients_still_learns() -> None:
    gate, (x, logits) = Gate("full"), inputs()
    with torch.no_grad():
        traced: Any = torch.jit.trace(gate, (x, logits))
    logits.requires_grad_()
    traced(x, logits).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
