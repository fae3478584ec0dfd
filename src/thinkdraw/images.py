"""Pictures between the ranges of files, models and judges.

This is the only place where pixel ranges change. uint8 pictures are (B, H, W, 3) in 0..255; model pixels are (B, 3, H, W) float in
[-1, 1].
"""

import base64
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pixels(pictures: Tensor | np.ndarray) -> Tensor:
    """Convert uint8 pictures (B, H, W, 3) to model pixels (B, 3, H, W), float32."""
    tensor = torch.as_tensor(pictures)
    if tensor.dtype != torch.uint8 or tensor.ndim != 4 or tensor.shape[-1] != 3:
        raise ValueError(f"pictures of {tensor.dtype} {tuple(tensor.shape)}: expected uint8 (B, H, W, 3).")
    return tensor.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1.0


def to_pictures(pixels: Tensor) -> Tensor:
    """Convert model pixels (B, 3, H, W) to uint8 pictures (B, H, W, 3).

    Values outside [-1, 1] are clamped.
    """
    scaled = (pixels.detach().float().clamp(-1, 1) + 1.0) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def to_pil(picture: Tensor | np.ndarray) -> Image.Image:
    """Convert one uint8 picture (H, W, 3) to a PIL image."""
    return Image.fromarray(np.asarray(picture, dtype=np.uint8))


def to_png(picture: Tensor | np.ndarray, *, quickly: bool = False) -> bytes:
    """Encode one picture as PNG. quickly: in a tenth of the time, as a larger file."""
    buffer = io.BytesIO()
    how = {"compress_level": 1} if quickly else {"optimize": True}
    to_pil(picture).save(buffer, format="PNG", **how)
    return buffer.getvalue()


def to_data_uri(picture: Tensor | np.ndarray, *, quickly: bool = False) -> str:
    """Encode one picture as a PNG data URI; quickly as in `to_png`.

    It is for a page or a request that carries its own pictures.
    """
    return "data:image/png;base64," + base64.b64encode(to_png(picture, quickly=quickly)).decode()


def contact_sheet(pictures: Tensor | np.ndarray, columns: int, pad: int = 2) -> np.ndarray:
    """Put pictures (B, H, W, 3) in a grid with white gaps, (H', W', 3) uint8."""
    array = np.asarray(pictures, dtype=np.uint8)
    count, height, width, _ = array.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + pad) + pad, columns * (width + pad) + pad, 3), 255, dtype=np.uint8)
    for i in range(count):
        y, x = pad + (i // columns) * (height + pad), pad + (i % columns) * (width + pad)
        sheet[y : y + height, x : x + width] = array[i]
    return sheet
