"""Several processes train one model as one process with their batches together."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foveate.errors import DataError, UsageError
from foveate.experiment import train_one
from foveate.experiment.launching import LOOPBACK, Rendezvous, rendezvous, with_options
from foveate.training import FitOptions, peers
from foveate.training.batches import SeededBatches, training_loader
from training.two_nodes import TRAIN, Nodes, rows, steps, two_nodes

FOUND = {"lo": ["127.0.0.1"], "eth0": ["10.0.0.1", "10.0.0.7"], "eth1": ["192.168.0.1"], "down": []}


class Numbered:
    """Samples that are their own numbers."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> int:
        return index


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_parts_together_are_the_batches_of_one_process(count: int, workers: int) -> None:
    def batches(size: int, part: tuple[int, int]) -> list[list[int]]:
        loader = training_loader(Numbered(), range(23), size, seed=3, workers=workers, part=part)
        found = []
        for epoch in range(2):
            loader.batch_sampler.set_epoch(epoch)  # pyright: ignore
            found += [batch.tolist() for batch in loader]
        return found

    parts = [batches(3, (rank, count)) for rank in range(count)]
    whole = batches(3 * count, (0, 1))
    assert len(whole) == 2 * (23 // (3 * count))
    assert [[*chain(*several)] for several in zip(*parts, strict=True)] == whole


def test_too_few_images_for_the_processes() -> None:
    with pytest.raises(UsageError, match="an image for each of 3 processes"):
        SeededBatches(range(2), 8, 0, part=(0, 3))
    assert SeededBatches(range(7), 8, 0, part=(1, 3)).batch == 2


def test_options_of_several_processes_need_the_strategy() -> None:
    with pytest.raises(UsageError, match="only with strategy='ddp'"):
        FitOptions(devices=2)
    with pytest.raises(UsageError, match="only with strategy='ddp'"):
        FitOptions(sync_batch_norm=True)
    with pytest.raises(UsageError, match="nodes: at least 1"):
        FitOptions(strategy="ddp", nodes=0)


def test_a_process_that_was_not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    options = FitOptions(strategy="ddp", devices=2, device="cpu")
    with pytest.raises(UsageError, match="a process that was not launched") as raised, peers.joined(options):
        pass
    assert "foveate launch --nodes 1 --devices 2 -- train" in raised.value.do
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="3 processes"), peers.joined(options):
        pass
    monkeypatch.setenv("RANK", "1")
    assert not peers.is_first()


def test_data_and_versions_of_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    train_one._require_same({"fingerprint": "x"})
    monkeypatch.setattr(peers, "from_first", lambda own: {**own, "data": {"fingerprint": "y"}})
    with pytest.raises(DataError, match="other data on "):
        train_one._require_same({"fingerprint": "x"})


def test_without_others_exchanges_do_nothing() -> None:
    assert peers.is_first()
    assert peers.position() == (0, 1)
    assert peers.mean(torch.tensor(3.0)) == 3
    assert peers.from_first("x") == "x"


@pytest.mark.parametrize(
    ("rank", "host", "interface", "expected"),
    [
        (0, "10.0.0.1", None, ("10.0.0.1", "eth0")),
        (0, "10.0.0.7", None, ("10.0.0.7", "eth0")),
        (0, "10.0.0.1", "eth1", ("192.168.0.1", "eth1")),
        (1, "10.0.0.9", "eth0", ("10.0.0.1", "eth0")),
    ],
)
def test_the_address_and_interface_of_this_machine(
    rank: int, host: str, interface: str | None, expected: tuple[str, str]
) -> None:
    found = rendezvous(2, rank, host, None, interface, FOUND)
    assert (found.address, found.interface) == expected
    assert (found.host, found.port) == (host, 29500)


def test_the_way_to_the_host_chooses_the_interface() -> None:
    found = rendezvous(2, 1, LOOPBACK, 1234, None, FOUND)
    assert found == Rendezvous(LOOPBACK, 1234, LOOPBACK, "lo")
    one = rendezvous(1, 0, None, None, None, FOUND)
    assert (one.host, one.interface) == (LOOPBACK, "lo")
    assert one.port != 29500
    assert one.environment(2, 5.0)["GLOO_SOCKET_IFNAME"] == "lo"
    assert one.environment(2, 5.0)[peers.TIMEOUT] == "5.0"


@pytest.mark.parametrize(
    ("rank", "host", "interface", "message"),
    [
        (1, None, None, "--host, the address of node 0"),
        (0, "10.9.9.9", None, "an address of this machine as --host of node 0"),
        (1, "10.0.0.1", "eth7", "--interface as a network interface"),
        (1, "10.0.0.1", "down", "with an IPv4 address"),
        (1, "no such host", None, "a name that this machine can resolve"),
    ],
)
def test_what_cannot_meet(rank: int, host: str | None, interface: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rendezvous(2, rank, host, None, interface, FOUND)


def test_only_train_is_launched() -> None:
    assert with_options(["train", "x"], 2, 3) == ["train", "x", "--strategy", "ddp", "--nodes", "2", "--devices", "3"]
    with pytest.raises(UsageError, match="-- train"):
        with_options(["study"], 1, 2)


@pytest.fixture(params=["processes", "namespaces"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Nodes]:
    with two_nodes(request.param, tmp_path) as made:
        yield made


STEPS = """
import os, sys, torch
import torch.distributed as dist
from torch import nn
from foveate.models import build
from foveate.surgery import attach
from foveate.training.sync_batch_norm import synchronised

rank, count, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.manual_seed(0)
model = build("resnet8", 4, channels=1)
attach(model, "cbam", "residual", start="paper", example=(1, 1, 16, 16))
model.double()
x, labels = torch.randn(3, 8, 1, 16, 16, dtype=torch.float64), torch.randint(0, 4, (3, 8))
if count > 1:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", store=dist.FileStore(folder + "/store", count), rank=rank, world_size=count)
learner = nn.parallel.DistributedDataParallel(model) if count > 1 else model
rate = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
with synchronised(model) if count > 1 and sys.argv[4] == "sync" else torch.enable_grad():
    for images, wanted in zip(x, labels):
        part = slice(rank * 8 // count, (rank + 1) * 8 // count)
        rate.zero_grad()
        nn.functional.cross_entropy(learner(images[part]), wanted[part]).backward()
        rate.step()
torch.save(model.state_dict(), f"{folder}/{count}-{rank}.pt")
"""


@pytest.mark.slow
def test_synchronised_norms_give_the_weights_of_one_process(tmp_path: Path) -> None:
    (alone,) = steps(STEPS, tmp_path, 1, "sync")
    for found in steps(STEPS, tmp_path, 2, "sync"):
        assert found.keys() == alone.keys()
        for name, expected in alone.items():
            torch.testing.assert_close(found[name], expected, atol=1e-10, rtol=1e-8)
    apart, _ = steps(STEPS, tmp_path, 2, "apart")
    assert max(float((apart[name] - alone[name]).abs().max()) for name in alone) > 1e-3


@pytest.mark.slow
def test_two_nodes_learn_what_one_process_learns(nodes: Nodes, tmp_path: Path) -> None:
    both = ["--epochs", "2", "--lr", "0.005", "--sync-batch-norm"]
    said = nodes.run_to_end("--batch", "8", *both)
    command = [sys.executable, "-m", "foveate", *TRAIN, *both[:4], "--batch", "16", "--project", str(tmp_path)]
    subprocess.run([*command, "--name", "alone"], check=True, capture_output=True)
    alone = tmp_path / "train" / "alone"
    (first, second), (first_alone, second_alone) = rows(nodes.run), rows(alone)
    assert [first["epoch"], second["epoch"]] == ["1", "2"]
    for found, expected in ((first, first_alone), (second, second_alone)):
        for loss in ("train_loss", "val_loss"):  # the batches of each process alone would differ by 4e-4
            assert float(found[loss]) == pytest.approx(float(expected[loss]), rel=5e-5)
    mine, other = (load_file(run / "weights" / "last.safetensors") for run in (nodes.run, alone))
    assert mine.keys() == other.keys()
    assert not (nodes.folder / "1").exists()  # only rank 0 writes
    assert "Test accuracy" in said[0]
    assert "Test accuracy" not in said[1]
