"""Between bytes and the networks' range: uint8 [B, H, W, C] <-> float [B, C, H, W] in [0, 1], channels-last memory."""

import torch
import torch.nn.functional as F
from torch import Tensor


def to_x(images: Tensor, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 [B, H, W, C] -> x [B, C, size, size] in [0, 1]; smaller images are centred on zeros."""
    x = images.permute(0, 3, 1, 2).to(dtype if dtype == torch.float64 else torch.float32) / 255
    rows, columns = size - x.shape[2], size - x.shape[3]
    assert rows >= 0 and columns >= 0, f"images of {tuple(images.shape[1:3])} do not fit on {size} pixels"
    if rows or columns:
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    return x.to(dtype, memory_format=torch.channels_last)


def to_images(x: Tensor) -> Tensor:
    """x [B, C, H, W] in [0, 1] -> uint8 [B, H, W, C], rounded to nearest."""
    return (x.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
