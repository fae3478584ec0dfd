"""OpenAI's CLIP preprocessing as torchvision computes it, which later judges took over."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def normalise(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1 → CLIP's mean 0 and deviation 1 per channel."""
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def resize_and_crop(pictures: Tensor, size: int) -> Tensor:
    """uint8 pictures (B, H, W, 3) → float32 pixels (B, 3, size, size): shorter side to `size`, the middle of the other.

    Pillow's bicubic filter; the crop's place is rounded as torchvision does, which can be one pixel beside where
    transformers cuts. `_transform` of github.com/openai/CLIP, the same in ImageReward.
    """
    height, width = pictures.shape[1:3]
    short = min(height, width)
    new_height, new_width = size * height // short, size * width // short
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    cut = [
        np.asarray(Image.fromarray(picture).resize((new_width, new_height), Image.Resampling.BICUBIC))[
            top : top + size, left : left + size
        ]
        for picture in pictures.numpy()
    ]
    return normalise(torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 255)
