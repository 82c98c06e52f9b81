"""torchvision's detectors: heads for our classes, stages, and what of them a classification network fills."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.detection.image_list import ImageList

from darkroom_trainer.models import build_model, class_keys, seeded, steady_norms
from darkroom_trainer.stages import Stage
from darkroom_trainer.weights import Backbone

BACKGROUND = 1
"""Detectors number classes from 1; 0 is what is none of them."""

_C4 = 13
"""The block of MobileNetV3 Large in whose middle SSDlite takes its first features."""
_POOL4 = 23
"""The layer of VGG-16 before which SSD takes its first features."""


class Canvas(nn.Module):
    """In place of torchvision's own resizing: images are normalised squares of one size already, and answers lie on them.

    A batch that is padded to its largest image makes what a network sees of an image depend on its neighbours.
    """

    def forward(self, images: Any, targets: Any = None) -> tuple[ImageList, Any]:
        tensor = images if isinstance(images, torch.Tensor) else torch.stack(list(images))
        return ImageList(tensor, [tuple(tensor.shape[-2:])] * len(tensor)), targets

    def postprocess(self, result: Any, image_shapes: Any, original_image_sizes: Any) -> Any:  # noqa: ARG002
        return result


def build(architecture: str, *, classes: int, seed: int = 0) -> nn.Module:
    """The network on the current default device, in training mode; the same seed gives the same weights.

    It takes normalised float images [n, 3, size, size], and in training mode targets too, a list of dicts with boxes
    (float32 [k, 4]) and labels (int64 [k], from 1); it gives a dict of mean losses, else a list of dicts with boxes, scores
    and labels.
    """
    with seeded(seed):
        model: nn.Module = torchvision.models.get_model(
            architecture, weights=None, weights_backbone=None, num_classes=classes + BACKGROUND
        )
    model.transform = Canvas()
    for head in _heads(model):
        head.register_forward_hook(_as_float32)
    return steady_norms(model)


def _heads(model: Any) -> list[nn.Module]:
    return [model.rpn.head, model.roi_heads.box_predictor] if hasattr(model, "rpn") else [model.head]


def _as_float32(_: nn.Module, __: Any, output: Any) -> Any:
    """Boxes are computed in the number format of the head's answers, and bfloat16 cannot tell pixel 257 from 258."""
    if isinstance(output, torch.Tensor):
        return output.float()
    if isinstance(output, dict):
        return {key: _as_float32(_, __, value) for key, value in output.items()}
    return type(output)(_as_float32(_, __, value) for value in output)


@lru_cache
def head_keys(architecture: str) -> frozenset[str]:
    """Names of the tensors whose shape follows the class count."""
    return class_keys(lambda classes: build(architecture, classes=classes))


# --- What a classification network's file fills ---


@lru_cache
def backbone_of(architecture: str) -> Backbone:
    """SSDlite has a narrower last stage than MobileNetV3: of that one, what differs stays as it was drawn."""
    name, place = _place(architecture)
    with torch.device("meta"):
        inner, outer = (
            build_model(name, classes=2, image_size=224).state_dict(),
            build(architecture, classes=2).state_dict(),
        )
    moved = {key: place(key) for key in inner}
    places = {key: to for key, to in moved.items() if to in outer and outer[to].shape == inner[key].shape}
    return Backbone(name, places, moved.keys() - places.keys())


def _place(architecture: str) -> tuple[str, Callable[[str], str]]:
    """The classification network, and where a tensor of it lies in the detector."""
    if architecture.startswith("ssdlite"):
        return "mobilenet_v3_large", _in_ssdlite
    if architecture.startswith("ssd300"):
        return "vgg16", _in_ssd
    name = "mobilenet_v3_large" if "mobilenet" in architecture else "resnet50"
    return name, lambda key: f"backbone.body.{key.removeprefix('features.')}"


def _in_ssd(key: str) -> str:
    match = re.fullmatch(r"features\.(\d+)\.(.+)", key)
    if match is None:
        return key
    number, rest = int(match[1]), match[2]
    return f"backbone.features.{key[9:]}" if number < _POOL4 else f"backbone.extra.0.{number - _POOL4}.{rest}"


def _in_ssdlite(key: str) -> str:
    match = re.fullmatch(r"features\.(\d+)\.(.+)", key)
    if match is None:
        return key
    number, rest = int(match[1]), match[2]
    if number < _C4:
        return f"backbone.features.0.{key[9:]}"
    if number > _C4:
        return f"backbone.features.1.{number - _C4}.{rest}"
    _, layer, inner = rest.split(".", 2)  # block.<layer>.<...>
    return f"backbone.features.0.{_C4}.{inner}" if layer == "0" else f"backbone.features.1.0.{int(layer) - 1}.{inner}"


# --- Stages ---


def stages_of(architecture: str, model: Any) -> list[Stage]:
    """The backbone's stages, by what they own, and a head of all that no classification network has.

    LastStages with `stages` opens as many of them as torchvision's `trainable_backbone_layers`.
    """
    if architecture.startswith("ssdlite"):
        first, second = model.backbone.features
        parts = [*_at_halvings(list(first)), [second]]
        head: list[Any] = [model.backbone.extra, model.head]
    elif architecture.startswith("ssd300"):
        *fifth, replaced = model.backbone.extra[0]
        parts = [*_after_pools(list(model.backbone.features)), fifth]
        head = [replaced, *model.backbone.extra[1:], model.backbone.scale_weight, model.head]
    else:
        body = model.backbone.body
        parts = (
            [[body.conv1, body.bn1], [body.layer1], [body.layer2], [body.layer3], [body.layer4]]
            if hasattr(body, "layer1")
            else _at_halvings(list(body.children()))
        )
        own = [model.rpn, model.roi_heads] if hasattr(model, "rpn") else [model.head]
        head = [model.backbone.fpn, *own]
    named = [Stage(f"stage{number}" if number else "stem", (), tuple(part)) for number, part in enumerate(parts)]
    return [*named, Stage("head", (), tuple(head))]


def _at_halvings(blocks: list[nn.Module]) -> list[list[nn.Module]]:
    """A new part at each block that halves the resolution; torchvision marks them."""
    parts: list[list[nn.Module]] = [[]]
    for block in blocks:
        if getattr(block, "_is_cn", False):
            parts.append([])
        parts[-1].append(block)
    return parts


def _after_pools(layers: list[nn.Module]) -> list[list[nn.Module]]:
    parts: list[list[nn.Module]] = [[]]
    for layer in layers:
        parts[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):
            parts.append([])
    return parts
