"""Several processes train one detector as one process with their batches together."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.two_nodes import rows, steps, two_nodes

SCENES = ("--train-count", "32", "--val-count", "10", "--test-count", "10", "--canvas", "64", "--fragments", "2")
TRAIN = ("train", "--task", "detect", "--attention", "se", "--start", "paper", "--optimizer", "sgd", *SCENES)
LOSSES = ("train_loss", "val_loss")

STEPS = """
import os, sys, torch
import torch.distributed as dist
from torch import nn
from foveate.data import DigitScenesOptions, open_box_data
from foveate.models.detectors import build_detector
from foveate.surgery import attach
from foveate.training import FitOptions
from foveate.training.batches import training_loader
from foveate.training.sync_batch_norm import synchronised
from foveate.training.tasks import detect

rank, count, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

class Loss(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, targets):
        return detect.loss(self.model, (images.double(), targets), options)

data = open_box_data(None, digits=DigitScenesOptions(canvas=64, train=16, val=10, test=10))
options = FitOptions(epochs=4, batch=8 // count, seed=3, multi_scale=True)
torch.manual_seed(0)
model = build_detector("yolov4-tiny", len(data.classes), data.describe()["anchors"])
attach(model, "cbam", "sites.*", start="paper", example=(1, 3, 64, 64))
model.double()
if count > 1:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", store=dist.FileStore(folder + "/store", count), rank=rank, world_size=count)
learner = nn.parallel.DistributedDataParallel(Loss(model)) if count > 1 else Loss(model)
rate = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
collate = detect.collate_for(model, options)
loader = training_loader(
    data.train, range(16), options.batch, options.seed, collate=collate, part=(rank, count),
    begin=lambda epoch: detect.begin_epoch(data.train, epoch, options),
)
seen = []
with synchronised(model) if count > 1 and sys.argv[4] == "sync" else torch.enable_grad():
    for epoch in (0, 3):  # with mosaics, and without
        loader.batch_sampler.set_epoch(epoch)
        for images, targets in loader:
            seen += [images, *targets]
            rate.zero_grad()
            learner(images, targets).backward()
            rate.step()
batches = {f"batch {number}": value for number, value in enumerate(seen)}
torch.save({**model.state_dict(), **batches}, f"{folder}/{count}-{rank}.pt")
"""


@pytest.mark.slow
def test_a_detector_has_the_batches_and_the_weights_of_one_process(tmp_path: Path) -> None:
    """Mosaics, the sizes of a multi-scale training and the number of objects are those of all processes."""
    (alone,) = steps(STEPS, tmp_path, 1, "sync")
    parts = steps(STEPS, tmp_path, 2, "sync")
    batches = [name for name in alone if name.startswith("batch")]
    assert len(batches) == 4 * 3  # images, and the targets of two heads
    assert len({alone[name].shape for name in batches}) > 3  # several sizes
    for name in batches:
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), alone[name], rtol=0, atol=0)
    for part in parts:
        assert part.keys() == alone.keys()
        for name in alone.keys() - set(batches):
            torch.testing.assert_close(part[name], alone[name], atol=1e-10, rtol=1e-8)


@pytest.mark.slow
def test_two_nodes_learn_the_detector_of_one_process(tmp_path: Path) -> None:
    both = ["--epochs", "2", "--lr", "0.001", "--sync-batch-norm"]
    with two_nodes("processes", tmp_path) as nodes:
        nodes.train = TRAIN
        said = nodes.run_to_end("--batch", "4", *both)
    command = [sys.executable, "-m", "foveate", *TRAIN, *both[:4], "--batch", "8", "--project", str(tmp_path)]
    subprocess.run([*command, "--name", "alone"], check=True, capture_output=True)
    alone = tmp_path / "train" / "alone"
    assert [row["epoch"] for row in rows(nodes.run)] == ["1", "2"]
    for found, expected in zip(rows(nodes.run), rows(alone), strict=True):
        for loss in LOSSES:
            assert float(found[loss]) == pytest.approx(float(expected[loss]), rel=5e-5)
    mine, other = (load_file(run / "weights" / "last.safetensors") for run in (nodes.run, alone))
    assert mine.keys() == other.keys()
    assert "Test AP50" in said[0]
    assert "Test AP50" not in said[1]
