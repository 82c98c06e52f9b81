"""torchvision's classification networks as a chain of stages, from the image to the logits.

Each family's own parts, in the order in which its `forward` runs them: what transfer learning freezes and opens, and
where cached features can enter. A stage ends with the operations without parameters that follow it, so that the head
begins at its first weight.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from darkroom_api.v1alpha1.architectures import CLASSIFIERS

Step = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Stage:
    """A link of the chain: `steps` one after another; `owned` has all its parameters, and those of its auxiliary heads."""

    name: str
    steps: tuple[Step, ...]
    owned: tuple[nn.Module | nn.Parameter, ...]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            images = step(images)
        return images

    @property
    def modules(self) -> list[nn.Module]:
        return [part for part in self.owned if isinstance(part, nn.Module)]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers, by names that are unique within the stage."""
        found: dict[str, torch.Tensor] = {}
        for number, part in enumerate(self.owned):
            inner = part.state_dict() if isinstance(part, nn.Module) else {"": part}
            found |= {f"{number}.{name}": tensor for name, tensor in inner.items()}
        return found

    def parameters(self) -> list[nn.Parameter]:
        own = [part for part in self.owned if isinstance(part, nn.Parameter)]
        return own + [parameter for module in self.modules for parameter in module.parameters()]


def stages_of(architecture: str, model: nn.Module) -> list[Stage]:
    """The stages of a network that `build_model` made, the head last.

    One after another they compute what `model` does in evaluation mode; in training mode too, but for the auxiliary
    outputs of Inception v3 and GoogLeNet.
    """
    return (_FAMILIES.get(architecture) or _FAMILIES[CLASSIFIERS[architecture].family])(model)


class Tail(nn.Module):
    """The stages from `first` on, as a network of its own: what takes cached features in place of images."""

    def __init__(self, model: nn.Module, stages: Sequence[Stage], first: int) -> None:
        super().__init__()
        self.model = model  # all of it: evaluation mode and parameters are those of the whole network
        self._stages = tuple(stages[first:])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        for stage in self._stages:
            features = stage(features)
        return features


# --- The families ---


def _stage(name: str, *steps: Step, owned: Sequence[nn.Module | nn.Parameter] = ()) -> Stage:
    modules = [step for step in steps if isinstance(step, nn.Module)]
    return Stage(name, steps, (*modules, *owned))


def _flat(images: torch.Tensor) -> torch.Tensor:
    return torch.flatten(images, 1)


def _mean(images: torch.Tensor) -> torch.Tensor:
    return images.mean([2, 3])


def _numbered(modules: Sequence[nn.Module], bounds: Sequence[int], *after: Step, stem: str = "stem") -> list[Stage]:
    """Stages between the bounds: the stem, stage1, stage2 and so on; `after` follows the last one."""
    stages = []
    for number, (first, end) in enumerate(pairwise((*bounds, len(modules)))):
        last = after if end == len(modules) else ()
        stages.append(_stage(f"stage{number}" if number else stem, *modules[first:end], *last))
    return stages


def _after_pools(features: Sequence[nn.Module]) -> list[int]:
    """Where stages begin that each end with a max-pool."""
    ends = [index + 1 for index, module in enumerate(features) if isinstance(module, nn.MaxPool2d)]
    return [0, *(end for end in ends if end < len(features))]


def _alexnet(model: Any) -> list[Stage]:
    return [
        *_numbered(model.features, (0, 3, 6, 8, 10), model.avgpool, _flat),
        _stage("fc6", *model.classifier[0:3]),
        _stage("fc7", *model.classifier[3:6]),
        _stage("head", model.classifier[6]),
    ]


def _vgg(model: Any) -> list[Stage]:
    return [
        *_numbered(model.features, _after_pools(model.features), model.avgpool, _flat),
        _stage("fc6", *model.classifier[0:3]),
        _stage("fc7", *model.classifier[3:6]),
        _stage("head", model.classifier[6]),
    ]


def _squeezenet(model: Any) -> list[Stage]:
    return [*_numbered(model.features, _after_pools(model.features)), _stage("head", model.classifier, _flat)]


def _resnet(model: Any) -> list[Stage]:
    return [
        _stage("stem", model.conv1, model.bn1, model.relu, model.maxpool),
        _stage("stage1", model.layer1),
        _stage("stage2", model.layer2),
        _stage("stage3", model.layer3),
        _stage("stage4", model.layer4, model.avgpool, _flat),
        _stage("head", model.fc),
    ]


def _regnet(model: Any) -> list[Stage]:
    blocks = list(model.trunk_output)
    return [*_numbered([model.stem, *blocks], range(len(blocks) + 1), model.avgpool, _flat), _stage("head", model.fc)]


def _densenet(model: Any) -> list[Stage]:
    names = [name for name, _ in model.features.named_children()]
    bounds = [0, *(names.index(name) for name in names if name.startswith("denseblock"))]
    pool = nn.AdaptiveAvgPool2d((1, 1))
    return [*_numbered(model.features, bounds, functional.relu, pool, _flat), _stage("head", model.classifier)]


def _inverted_residuals(model: Any) -> list[int]:
    """Where the resolution halves: torchvision marks these blocks for its own detection backbones."""
    halving = [index for index, block in enumerate(model.features) if getattr(block, "_is_cn", False)]
    return [0, *halving]


def _mobilenet_v2(model: Any) -> list[Stage]:
    pool = nn.AdaptiveAvgPool2d((1, 1))
    return [*_numbered(model.features, _inverted_residuals(model), pool, _flat), _stage("head", model.classifier)]


def _mobilenet_v3(model: Any) -> list[Stage]:
    return [
        *_numbered(model.features, _inverted_residuals(model), model.avgpool, _flat),
        _stage("fc", model.classifier[0], model.classifier[1]),
        _stage("head", *model.classifier[2:]),
    ]


def _efficientnet(model: Any) -> list[Stage]:
    bounds = range(len(model.features))
    return [*_numbered(model.features, bounds, model.avgpool, _flat), _stage("head", model.classifier)]


def _mnasnet(model: Any) -> list[Stage]:
    return [*_numbered(model.layers, (0, *range(8, 14)), _mean), _stage("head", model.classifier)]


def _shufflenet(model: Any) -> list[Stage]:
    return [
        _stage("stem", model.conv1, model.maxpool),
        _stage("stage1", model.stage2),
        _stage("stage2", model.stage3),
        _stage("stage3", model.stage4, model.conv5, _mean),
        _stage("head", model.fc),
    ]


def _convnext(model: Any) -> list[Stage]:
    """A stage begins with the layer that halves the resolution before it."""
    return [*_numbered(model.features, (0, 1, 2, 4, 6), model.avgpool), _stage("head", model.classifier)]


def _swin(model: Any) -> list[Stage]:
    stages = _numbered(model.features, (0, 1, 2, 4, 6), model.norm, model.permute, model.avgpool, model.flatten)
    return [*stages, _stage("head", model.head)]


def _vit(model: Any) -> list[Stage]:
    """The layers of the encoder in four equal parts."""

    def embed(images: torch.Tensor) -> torch.Tensor:
        patches = model._process_input(images)
        token = model.class_token.expand(len(patches), -1, -1)
        return model.encoder.dropout(torch.cat([token, patches], dim=1) + model.encoder.pos_embedding)

    def answer(tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]

    layers = list(model.encoder.layers)
    own = (model.class_token, model.conv_proj, model.encoder.dropout, model.encoder.pos_embedding)
    quarters = [len(layers) * part // 4 for part in range(4)]
    body = _numbered(layers, quarters, model.encoder.ln, answer, stem="stage0")
    named = [Stage(f"stage{number}", stage.steps, stage.owned) for number, stage in enumerate(body, start=1)]
    return [_stage("stem", embed, owned=own), *named, _stage("head", model.heads)]


def _maxvit(model: Any) -> list[Stage]:
    blocks, classifier = list(model.blocks), model.classifier
    return [
        *_numbered([model.stem, *blocks], range(len(blocks) + 1), *classifier[0:2]),
        _stage("fc", *classifier[2:5]),
        _stage("head", classifier[5]),
    ]


def _googlenet(model: Any) -> list[Stage]:
    auxiliary = [module for module in (model.aux1, model.aux2) if module is not None]
    fourth = (model.inception4a, model.inception4b, model.inception4c, model.inception4d, model.inception4e)
    return [
        _stage("stem", model.conv1, model.maxpool1, model.conv2, model.conv3, model.maxpool2),
        _stage("stage1", model.inception3a, model.inception3b, model.maxpool3),
        _stage("stage2", *fourth, model.maxpool4, owned=auxiliary),
        _stage("stage3", model.inception5a, model.inception5b, model.avgpool, _flat),
        _stage("head", model.dropout, model.fc),
    ]


def _inception_v3(model: Any) -> list[Stage]:
    auxiliary = [model.AuxLogits] if model.AuxLogits is not None else []
    first = (model.Conv2d_1a_3x3, model.Conv2d_2a_3x3, model.Conv2d_2b_3x3, model.maxpool1)
    sixth = (model.Mixed_6a, model.Mixed_6b, model.Mixed_6c, model.Mixed_6d, model.Mixed_6e)
    return [
        _stage("stem", *first, model.Conv2d_3b_1x1, model.Conv2d_4a_3x3, model.maxpool2),
        _stage("stage1", model.Mixed_5b, model.Mixed_5c, model.Mixed_5d),
        _stage("stage2", *sixth, owned=auxiliary),
        _stage("stage3", model.Mixed_7a, model.Mixed_7b, model.Mixed_7c, model.avgpool),
        _stage("head", model.dropout, _flat, model.fc),
    ]


_FAMILIES: dict[str, Callable[[Any], list[Stage]]] = {
    "AlexNet": _alexnet,
    "ConvNeXt": _convnext,
    "DenseNet": _densenet,
    "EfficientNet": _efficientnet,
    "googlenet": _googlenet,
    "inception_v3": _inception_v3,
    "MaxViT": _maxvit,
    "MNASNet": _mnasnet,
    "mobilenet_v2": _mobilenet_v2,
    "MobileNet": _mobilenet_v3,
    "RegNet": _regnet,
    "ResNet": _resnet,
    "ShuffleNet": _shufflenet,
    "SqueezeNet": _squeezenet,
    "Swin": _swin,
    "VGG": _vgg,
    "ViT": _vit,
}
