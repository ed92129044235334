"""torch's own checks of an operation: schema, fake tensors, autograd registration, tracing with dynamic shapes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.cases import VIEWS, Layout, Subject, draw, recorded

pytestmark = pytest.mark.usefixtures("built")

SUBJECTS = [
    Subject("se"),
    Subject("ese"),
    Subject("gct"),
    Subject("srm"),
    Subject("eca"),
    Subject("spatial", {"kernel_size": 3, "norm": False, "bias": True}),
    Subject("scse"),
    Subject("simam"),
    Subject("cbam"),
    Subject("cbam", {"order": "parallel", "pools": ("max",), "bias": False}),
    Subject("coordinate"),
    Subject("coordinate", {"activation": "relu", "bias": False}),
]
SUBJECT = pytest.mark.parametrize("subject", SUBJECTS, ids=str)


def learnable(value: Any) -> Any:
    return value.detach().clone().requires_grad_() if isinstance(value, Tensor) else value


@SUBJECT
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_forward_with_its_gradient(subject: Subject, training: bool) -> None:
    x = draw(2, 8, 5, 6, layout="channels_last" if training else "nchw")
    operation, args, _ = recorded(subject.module(8, start="identity").train(training), x)
    learns = [learnable(value) if index in operation.learnable else value for index, value in enumerate(args)]
    torch.library.opcheck(operation.full, (learnable(x), *learns))


@SUBJECT
@pytest.mark.parametrize("form", ["inplace", "gates", "backward"])
def test_the_other_forms(subject: Subject, form: str) -> None:
    x = draw(2, 8, 5, 6, dtype=torch.bfloat16)
    operation, args, (_, kept, _) = recorded(subject.module(8, dtype=torch.bfloat16).eval(), x)
    before = (draw(2, 8, 5, 6, dtype=torch.bfloat16, seed=1), kept) if form == "backward" else ()
    torch.library.opcheck(
        getattr(operation, form), (*before, x, *(learnable(a).detach() if isinstance(a, Tensor) else a for a in args))
    )


@pytest.mark.parametrize(
    "shape", [(2, 8, 5, 6), (2, 8, 1, 1), (2, 8, 1, 6), (1, 8, 5, 1), (2, 1, 5, 6), (1, 1, 1, 1)], ids=str
)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("subject", [Subject("cbam"), Subject("coordinate")], ids=str)
def test_fake_tensors_are_laid_out_as_real_ones(subject: Subject, layout: Layout, shape: tuple[int, ...]) -> None:
    whole = draw(*shape, layout=layout)
    for x in filter(torch.numel, [whole, *(view(whole) for view in VIEWS.values())]):
        operation, args, (y, kept, _) = recorded(subject.module(x.shape[1]).eval(), x)
        for form, before in (
            (operation.full, ()),
            (operation.gates, ()),
            (operation.backward, (torch.ones_like(y), kept)),
        ):
            torch.library.opcheck(form, (*before, x, *args), test_utils="test_faketensor")
