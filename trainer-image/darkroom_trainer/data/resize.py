"""Progressive resizing: a batch at another size, on the device."""

from dataclasses import replace

import torch
from torch.nn import functional

from darkroom_trainer.tasks.base import Batch


def resized(batch: Batch, size: int) -> Batch:
    """Images float32 [n, 3, size, size] in 0..255, bilinear and antialiased; maps of classes [n, H, W] by the nearest pixel.

    A batch of features stays as it is.
    """
    if batch.encoded:
        return batch
    images = functional.interpolate(batch.images.float(), size=(size, size), mode="bilinear", antialias=True)
    layout = (
        torch.channels_last
        if batch.images.is_contiguous(memory_format=torch.channels_last)
        else torch.contiguous_format
    )
    targets = batch.targets
    if isinstance(targets, torch.Tensor) and targets.ndim == 3:
        targets = functional.interpolate(targets[:, None].float(), size=(size, size), mode="nearest-exact")[:, 0]
        targets = targets.to(batch.targets.dtype)
    return replace(batch, images=images.contiguous(memory_format=layout), targets=targets)
