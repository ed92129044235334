"""A host for planted data that ignores positions: an image is a bag of pixels to it."""

from torch import Tensor, nn


class PixelNet(nn.Module):
    """Two 1 x 1 convolutions, a global mean and a linear layer: (N, channels, H, W) -> (N, classes).

    Each convolution has a batch norm and a ReLU. In eval mode the logits are the mean, over positions, of a function of
    one pixel. The site for attention is `features`.
    """

    def __init__(self, classes: int, channels: int = 3, width: int = 32):
        super().__init__()
        self.pixels = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.features = nn.ReLU()
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images (N, channels, H, W): logits (N, classes)."""
        return self.linear(self.features(self.pixels(x)).mean((2, 3)))
