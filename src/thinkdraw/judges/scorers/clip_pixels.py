"""OpenAI's CLIP preprocessing as torchvision computes it; later judges use it too."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def normalise(pixels: Tensor) -> Tensor:
    """Normalise (B, 3, H, W) pixels in 0..1 by CLIP's mean and deviation per channel."""
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def resize_and_crop(pictures: Tensor, size: int) -> Tensor:
    """Resize the shorter side to `size` and cut out the middle of the longer one.

    uint8 pictures (B, H, W, 3) → float32 pixels (B, 3, size, size), with Pillow's bicubic filter. The crop's position
    is rounded as in torchvision, which can be one pixel beside transformers' crop. `_transform` of
    github.com/openai/CLIP; ImageReward has the same.
    """
    height, width = pictures.shape[1:3]
    short = min(height, width)
    new_height, new_width = size * height // short, size * width // short
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    crops = [
        np.asarray(Image.fromarray(picture).resize((new_width, new_height), Image.Resampling.BICUBIC))[
            top : top + size, left : left + size
        ]
        for picture in pictures.numpy()
    ]
    return normalise(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255)
