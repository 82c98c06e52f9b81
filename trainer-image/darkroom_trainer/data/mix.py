"""MixUp and CutMix: two images and their labels become one training sample.

Partners come from the same micro-batch of the same process. A blank that stands in for an unreadable file is never
mixed into another image.
"""

import math
from dataclasses import dataclass
from random import Random

import torch


@dataclass(frozen=True)
class Mixed:
    """`images` as the network gets them; the loss is `share` of that for `targets` and the rest for `others`."""

    images: torch.Tensor
    targets: torch.Tensor
    others: torch.Tensor
    share: float


def mix(
    images: torch.Tensor,
    targets: torch.Tensor,
    valid: torch.Tensor,
    *,
    mixup: float,
    cutmix: float,
    generator: torch.Generator,
) -> Mixed:
    """Mix float images [n, 3, H, W] by MixUp or CutMix of these alphas, 0 being off; with both, one is drawn.

    All draws come from `generator` (CPU): equal generators give equal mixes on any device.
    """
    if not (mixup or cutmix) or len(images) < 2:
        return Mixed(images, targets, targets, 1.0)
    random = Random(int(torch.randint(2**62, (), generator=generator)))  # noqa: S311 - pixels, not secrets
    order = torch.randperm(len(images), generator=generator).to(images.device)
    itself = torch.arange(len(images), device=images.device)
    partner = torch.where(valid[order] > 0, order, itself)
    use_mixup = bool(mixup) and (not cutmix or random.random() < 0.5)
    alpha = mixup if use_mixup else cutmix
    share = random.betavariate(alpha, alpha)
    if use_mixup:
        return Mixed(torch.lerp(images[partner], images, share), targets, targets[partner], share)
    images, share = _paste(images, partner, share, random)
    return Mixed(images, targets, targets[partner], share)


def _paste(images: torch.Tensor, partner: torch.Tensor, share: float, random: Random) -> tuple[torch.Tensor, float]:
    """Replace a rectangle of `1 - share` of the area by the partner's; the true share, for it is cut at the edges."""
    height, width = images.shape[-2:]
    half = math.sqrt(1 - share) / 2
    y, x = random.randrange(height), random.randrange(width)
    top, bottom = max(0, round(y - half * height)), min(height, round(y + half * height))
    left, right = max(0, round(x - half * width)), min(width, round(x + half * width))
    pasted = images.clone()
    pasted[..., top:bottom, left:right] = images[partner][..., top:bottom, left:right]
    return pasted, 1 - (bottom - top) * (right - left) / (height * width)
