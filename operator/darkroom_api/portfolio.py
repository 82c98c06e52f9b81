"""Which networks are worth a try, by what is published of them: accuracy, and the work that one image takes."""

from dataclasses import dataclass

from darkroom_api.v1alpha1.auto import Quality
from darkroom_api.v1alpha1.tasks import NETWORKS, Task


@dataclass(frozen=True)
class Published:
    """Of torchvision's default weights, by its documentation; a test compares them with the package's own metadata."""

    accuracy: float
    """Percent: top-1 of ImageNet-1K, mean IoU or box mAP of COCO val2017."""
    gflops: float
    """Of one forward pass, at the image size that the weights were measured at."""


PUBLISHED: dict[str, Published] = {
    "convnext_base": Published(84.062, 15.355),
    "convnext_small": Published(83.616, 8.684),
    "convnext_tiny": Published(82.52, 4.456),
    "efficientnet_b0": Published(77.692, 0.386),
    "efficientnet_b1": Published(79.838, 0.687),
    "efficientnet_b2": Published(80.608, 1.088),
    "efficientnet_b3": Published(82.008, 1.827),
    "efficientnet_b4": Published(83.384, 4.394),
    "efficientnet_v2_m": Published(85.112, 24.582),
    "efficientnet_v2_s": Published(84.228, 8.366),
    "mobilenet_v2": Published(72.154, 0.301),
    "mobilenet_v3_large": Published(75.274, 0.217),
    "mobilenet_v3_small": Published(67.668, 0.057),
    "resnet101": Published(81.886, 7.801),
    "resnet152": Published(82.284, 11.514),
    "resnet18": Published(69.758, 1.814),
    "resnet34": Published(73.314, 3.664),
    "resnet50": Published(80.858, 4.089),
    "vit_b_16": Published(81.072, 17.564),
    "vit_b_32": Published(75.912, 4.409),
    # Segmentation
    "deeplabv3_mobilenet_v3_large": Published(60.3, 10.452),
    "deeplabv3_resnet101": Published(67.4, 258.743),
    "deeplabv3_resnet50": Published(66.4, 178.722),
    "fcn_resnet50": Published(60.5, 152.717),
    "lraspp_mobilenet_v3_large": Published(57.9, 2.086),
    # Detection
    "fasterrcnn_mobilenet_v3_large_320_fpn": Published(22.8, 0.719),
    "fasterrcnn_mobilenet_v3_large_fpn": Published(32.8, 4.494),
    "fasterrcnn_resnet50_fpn_v2": Published(46.7, 280.371),
    "fcos_resnet50_fpn": Published(39.2, 128.207),
    "retinanet_resnet50_fpn_v2": Published(41.5, 152.238),
}

MOST_GFLOPS: dict[Task, dict[Quality, float]] = {
    Task.CLASSIFICATION: {Quality.FAST: 2, Quality.BALANCED: 5, Quality.BEST: 20},
    Task.SEGMENTATION: {Quality.FAST: 15, Quality.BALANCED: 180, Quality.BEST: 300},
    Task.DETECTION: {Quality.FAST: 5, Quality.BALANCED: 160, Quality.BEST: 300},
}
"""What an image may take. Fast: a GPU is not needed. Best: what one GPU trains within hours."""
PER_FAMILY = {Task.CLASSIFICATION: 1, Task.SEGMENTATION: 2, Task.DETECTION: 2}
"""Of classification networks there are five families; of the others, backbones of two."""
NEED_WEIGHTS = ("ViT",)
"""Families that learn little from scratch on less than millions of images (Dosovitskiy et al., 2021)."""


def portfolio(task: Task, quality: Quality, *, pretrained: bool) -> tuple[str, ...]:
    """The most accurate networks of each family within the quality's work per image, by accuracy per work.

    pretrained: their weights may be there.
    """
    chosen: list[str] = []
    families: dict[str, int] = {}
    able = [name for name in NETWORKS[task] if name in PUBLISHED and _fits(name, task, quality, pretrained)]
    for name in sorted(able, key=lambda name: -PUBLISHED[name].accuracy):
        family = NETWORKS[task][name].family
        families[family] = families.get(family, 0) + 1
        if families[family] <= PER_FAMILY[task]:
            chosen.append(name)
    return tuple(sorted(chosen, key=lambda name: -PUBLISHED[name].accuracy / PUBLISHED[name].gflops))


def _fits(name: str, task: Task, quality: Quality, pretrained: bool) -> bool:
    lost = NETWORKS[task][name].family in NEED_WEIGHTS and not pretrained
    return PUBLISHED[name].gflops <= MOST_GFLOPS[task][quality] and not lost
