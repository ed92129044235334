"""The augmentation of training images with torchvision: random crop, horizontal flip, colour."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.models.torchvision_guard import ensure_torchvision

_LEAST_AREA = 0.6
_COLOUR = 0.2
AUGMENTATION = (
    f"a crop of {100 * _LEAST_AREA:.0f} to 100 % of the area, randomly mirrored, with brightness, contrast and "
    f"saturation changed by up to {100 * _COLOUR:.0f} % each"
)


def random_view(image: NDArray[np.uint8], size: int, *seeds: int) -> NDArray[np.uint8]:
    """Return a random view, uint8 (size, size, 3), of an image, uint8 (H, W, 3); it depends only on the seeds.

    The random states of torch and of the GPUs do not change.
    """
    import torch

    seed = int(np.random.default_rng(seeds).integers(2**63))
    # torch warns about read-only memory
    pixels = torch.from_numpy(image if image.flags.writeable else image.copy())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs as well
        view = _transforms(size)(pixels.permute(2, 0, 1))
    return view.permute(1, 2, 0).numpy()


@cache
def _transforms(size: int) -> Any:
    ensure_torchvision()
    from torchvision.transforms import v2

    crop, flip = v2.RandomResizedCrop(size, scale=(_LEAST_AREA, 1.0)), v2.RandomHorizontalFlip()
    return v2.Compose([crop, flip, v2.ColorJitter(_COLOUR, _COLOUR, _COLOUR)])
