"""Models with attention can still be copied, pickled, compiled, wrapped, and moved to other layouts and precisions."""

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveate.surgery import attach, attention_parameters, detach
from last_layers import wake
from representatives import REPRESENTATIVES
from surgery import hosts

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


@pytest.fixture(params=REPRESENTATIVES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return woken(hosts.ResNet(), request.param)


@pytest.fixture(params=REPRESENTATIVES)
def small(request: pytest.FixtureRequest) -> nn.Module:
    return woken(hosts.InPlaceAfter(), request.param)


def woken(host: nn.Module, mechanism: str) -> nn.Module:
    attach(hosts.settle(host), mechanism, example=hosts.SHAPE)
    wake(host)
    return host


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
@pytest.mark.reliability(5)
def test_copies_compute_the_same_and_detach_alone(model: nn.Module, twin: Callable[[nn.Module], nn.Module]) -> None:
    x = hosts.image()
    after = hosts.run(model, x)
    other = twin(model)
    assert torch.equal(hosts.run(other, x), after)
    assert {id(p) for p in other.parameters()}.isdisjoint(id(p) for p in model.parameters())
    detach(other)
    assert torch.equal(hosts.run(model, x), after)
    assert not any(module._forward_hooks for module in other.modules())
    detach(model)
    assert torch.equal(hosts.run(model, x), hosts.run(other, x))
    assert list(model.state_dict()) == list(other.state_dict())


@pytest.mark.reliability(5)
def test_compile_in_one_graph(small: nn.Module) -> None:
    x = hosts.image()
    compiled = torch.compile(small, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(hosts.run(compiled, x), hosts.run(small, x), rtol=1e-5, atol=1e-6)
    torch.compiler.reset()


@pytest.mark.reliability(5)
def test_export(small: nn.Module) -> None:
    x = hosts.image()
    exported = torch.export.export(small, (x,)).module()
    torch.testing.assert_close(hosts.run(exported, x), hosts.run(small, x), rtol=1e-5, atol=1e-6)


@pytest.mark.reliability(5)
def test_channels_last_after_and_before_attaching(model: nn.Module) -> None:
    x = hosts.image()
    after = hosts.run(model, x)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(
        hosts.run(model, x.contiguous(memory_format=torch.channels_last)), after, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_the_identity_start_is_exact_in_channels_last(name: str) -> None:
    host = hosts.settle(hosts.ResNet()).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x = hosts.image().contiguous(memory_format=torch.channels_last)
    before = hosts.run(host, x)
    attach(host, name, example=x)
    assert torch.equal(hosts.run(host, x), before)
    kernels = [p for p in attention_parameters(host) if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.reliability(5)
def test_attention_takes_the_dtype_of_its_site(dtype: torch.dtype) -> None:
    host = hosts.settle(hosts.ResNet()).to(dtype)
    x = hosts.image().to(dtype)
    before = hosts.run(host, x)
    attach(host, "cbam", example=hosts.SHAPE, reduction=2)
    assert {parameter.dtype for parameter in attention_parameters(host)} == {dtype}
    assert torch.equal(hosts.run(host, x), before)


@pytest.mark.reliability(5)
def test_autocast(model: nn.Module) -> None:
    x = hosts.image()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
        y.float().square().sum().backward()
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y.float(), hosts.run(model, x), rtol=0.1, atol=0.1)


def test_attaching_inside_autocast_uses_the_models_own_dtype() -> None:
    host = hosts.settle(hosts.ResNet())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attach(host, "se", example=hosts.SHAPE, reduction=2)
    assert {parameter.dtype for parameter in attention_parameters(host)} == {torch.float32}


def test_attaching_inside_inference_mode_gives_attention_that_can_learn() -> None:
    host = hosts.settle(hosts.ResNet())
    with torch.inference_mode():
        attach(host, "cbam", example=hosts.SHAPE, reduction=2)
    host.train()(hosts.image()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in attention_parameters(host))


def test_meta_device() -> None:
    with torch.device("meta"):
        host = hosts.ResNet()
    assert attach(host, "se", example=hosts.SHAPE, reduction=2).parameters > 0
    assert {parameter.device.type for parameter in host.parameters()} == {"meta"}


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_distributed_training_moves_host_and_attention() -> None:
    host = hosts.settle(hosts.ResNet()).train()
    attach(host, "cbam", example=hosts.SHAPE, reduction=2)
    wrapped = nn.parallel.DistributedDataParallel(host)
    optimiser = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    first = [parameter.clone() for parameter in wrapped.parameters()]
    for _ in range(2):  # with the identity start the inner weights of the gates learn from the second step on
        optimiser.zero_grad()
        wrapped(hosts.image(4, 3, 16, 16)).square().sum().backward()
        optimiser.step()
    still = [
        name for (name, now), before in zip(wrapped.named_parameters(), first, strict=True) if torch.equal(now, before)
    ]
    assert still == []


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("start", ["paper", "identity"])
@pytest.mark.parametrize("mechanism", ["cbam", "coordinate"])
def test_fully_sharded_training_moves_the_attention(mechanism: str, start: Any) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    plain = hosts.settle(hosts.ResNet())
    host = copy.deepcopy(plain)
    attach(host, mechanism, example=hosts.SHAPE, start=start)
    wake(host)
    want, mesh = hosts.run(host, hosts.image()), init_device_mesh("cpu", (1,))
    for block in (*host.get_submodule("layer1").children(), host):
        fully_shard(block, mesh=mesh)
    torch.testing.assert_close(hosts.run(host, hosts.image()), want, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(want, hosts.run(plain, hosts.image()))
    host.train()(hosts.image()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in attention_parameters(host))


@pytest.mark.parametrize("where", ["residual", "stage"])
def test_a_train_step_at_the_identity_start_is_the_hosts_own(where: str) -> None:
    def gradients(host: nn.Module) -> dict[str, Tensor]:
        host.train()(hosts.image()).square().sum().backward()
        return {name: p.grad for name, p in host.named_parameters() if hosts.CHILD not in name and p.grad is not None}

    torch.manual_seed(0)
    plain = hosts.settle(hosts.ResNet())
    model = copy.deepcopy(plain)
    attach(model, "cbam", where, example=hosts.SHAPE, reduction=2)
    expected, found = gradients(plain), gradients(model)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.slow
@pytest.mark.reliability(5)
def test_compile_with_the_default_backend(model: nn.Module) -> None:
    x = hosts.image()
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(hosts.run(compiled, x), hosts.run(model, x), rtol=1e-4, atol=1e-5)
    torch.compiler.reset()
