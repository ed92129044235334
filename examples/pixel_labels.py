"""Label every pixel: a small head on ResNetFPN4's dense features, trained on cluttered digits.

Each pixel is background or has the digit's class. The fragments of other digits are background, and only their
surroundings show it. Prints the intersection over union (IoU) on test scenes before and after training, and draws some
of them.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from foveate.data import Data, DigitsOptions, open_data
from foveate.models import ResNetFPN4

INK_WEIGHT = 3.0  # the weight in the loss of a pixel of the digit; one pixel in forty is one
GREY = 96
COLOURS = np.array(
    [
        (0, 0, 0),
        (230, 60, 60),
        (245, 150, 40),
        (235, 220, 60),
        (120, 200, 60),
        (50, 160, 90),
        (70, 200, 210),
        (60, 110, 230),
        (140, 90, 220),
        (220, 90, 200),
        (235, 235, 235),
    ],
    np.uint8,
)  # the colours of the background and of the digits 0 to 9


def main() -> None:
    """Read the options, train, and print and draw the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block", default="residual_cbam", help="the attention in the blocks: a mechanism, or none")
    parser.add_argument("--width", type=int, default=8, help="channels of the first block")
    parser.add_argument("--canvas", type=int, default=40, help="side of a scene in pixels")
    parser.add_argument(
        "--scenes", type=int, default=4000, help="number of training scenes; the test has a quarter of it"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("runs/pixel_labels.png"),
        help="file for the picture of inputs, ground truth and predictions",
    )
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    quarter = max(10, options.scenes // 4)  # a data set needs at least 10 scenes
    data = open_data(
        None, digits=DigitsOptions(options.canvas, train=options.scenes, val=10, test=quarter, seed=options.seed)
    )
    images, truth = pixels(data, "train")
    unseen, its_truth = pixels(data, "test")

    features = ResNetFPN4(options.width, channels=1, block=None if options.block == "none" else options.block)
    model = nn.Sequential(features, nn.Conv2d(features.out_channels, 1 + len(data.classes), 1))
    print_measures("before", iou(predict(model, unseen), its_truth))
    loss_of = nn.CrossEntropyLoss(torch.tensor([1.0] + [INK_WEIGHT] * len(data.classes)))
    train(model, loss_of, images, truth, options.epochs, options.batch, options.lr)
    predicted = predict(model, unseen)
    print_measures("after", iou(predicted, its_truth))
    draw(options.picture, data, its_truth, predicted)


def pixels(data: Data, split: str) -> tuple[Tensor, Tensor]:
    """Return images (N, 1, H, W) of a split and int64 labels (N, H, W): 0 for background, 1 + k for digit k."""
    scenes, masks = getattr(data, split), (data.masks or {})[split]
    labels = torch.from_numpy(scenes.labels)
    return torch.stack([image for image, _ in scenes]), torch.from_numpy(masks) * (1 + labels)[:, None, None]


def train(
    model: nn.Module, loss_of: nn.Module, images: Tensor, truth: Tensor, epochs: int, batch: int, lr: float
) -> None:
    """Train the model with a learning rate that warms up and then falls to 0."""
    optimiser = torch.optim.AdamW(model.parameters(), lr)
    steps = len(images) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=epochs * steps)
    model.train()
    for epoch in range(epochs):
        began, total = time.monotonic(), 0.0
        for chosen in torch.randperm(len(images))[: steps * batch].chunk(steps):
            loss = loss_of(model(images[chosen]), truth[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / steps:.4f} ({time.monotonic() - began:.0f} s)", flush=True)


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor) -> Tensor:
    """Return the most likely label of every pixel, int64 (N, H, W)."""
    model.eval()
    return torch.cat([model(batch).argmax(1) for batch in images.split(64)])


def iou(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """Return the IoU of all digits against the background, and the mean IoU over background and digits."""
    labels = truth.unique().tolist()
    each = [_iou(predicted == label, truth == label) for label in labels]
    return {
        "digit against background": _iou(predicted > 0, truth > 0),
        f"mean over {len(labels)} labels": sum(each) / len(each),
    }


def _iou(predicted: Tensor, truth: Tensor) -> float:
    return ((predicted & truth).sum() / (predicted | truth).sum()).item()


def print_measures(when: str, measures: dict[str, float]) -> None:
    """Print the measures in one line."""
    print(f"{when}: " + ", ".join(f"{name} IoU {value:.3f}" for name, value in measures.items()), flush=True)


def draw(path: Path, data: Data, truth: Tensor, predicted: Tensor, count: int = 8, zoom: int = 3) -> None:
    """Draw the first scenes of the test split in three rows: inputs, ground truth, predictions."""
    inputs = [data.image("test", index) for index in range(count)]
    rows = [inputs, COLOURS[truth[:count]], COLOURS[predicted[:count]]]
    framed = [[np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=GREY) for tile in row] for row in rows]
    picture = np.concatenate([np.concatenate(row, 1) for row in framed])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.repeat(zoom, 0).repeat(zoom, 1)).save(path)
    print(f"drew {path}: inputs, ground truth, predictions")


if __name__ == "__main__":
    main()
