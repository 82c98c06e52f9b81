"""torchvision's classification networks by name, with heads for our classes and without their surprises."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torchvision
from torch import nn

from darkroom_api.v1alpha1.architectures import CLASSIFIERS
from darkroom_trainer.errors import ConfigError

# The framework's default initialisation, as every other family has it: torchvision's own one for these two is due to
# change, is slow, and says both in a warning. `transform_input` assumes ImageNet's normalisation; ours is a field.
_INCEPTION = {"transform_input": False, "init_weights": False}

AUXILIARY_SIZE = 299
"""Smallest image from which Inception v3's auxiliary head, a 5x5 convolution, can be trained; it is left out below."""

HEADS = {
    "AlexNet": ("classifier.6",),
    "ConvNeXt": ("classifier.2",),
    "DenseNet": ("classifier",),
    "EfficientNet": ("classifier.1",),
    "googlenet": ("fc", "aux1.fc2", "aux2.fc2"),
    "inception_v3": ("fc", "AuxLogits.fc"),
    "MaxViT": ("classifier.5",),
    "MNASNet": ("classifier.1",),
    "mobilenet_v2": ("classifier.1",),
    "MobileNet": ("classifier.3",),
    "RegNet": ("fc",),
    "ResNet": ("fc",),
    "ShuffleNet": ("fc",),
    "SqueezeNet": ("classifier.1",),
    "Swin": ("head",),
    "VGG": ("classifier.6",),
    "ViT": ("heads.head",),
}
"""The layers that answer with one number per class, by architecture, else by family."""
_WITHOUT_BIAS = ("MaxViT",)


def build_model(
    architecture: str, *, classes: int, image_size: int, stem: str = "Standard", seed: int = 0
) -> nn.Module:
    """The network on the current default device, in training mode, with a head of `classes` outputs.

    It takes float images [n, 3, image_size, image_size] and gives logits [n, classes]; Inception v3 and GoogLeNet give a
    named tuple with auxiliary logits while training. The same seed gives the same weights; the global random state is
    left as it was. Raises ConfigError for an unknown name and for a stem that the family does not have.
    """
    if architecture not in CLASSIFIERS:
        raise ConfigError(f"model.architecture: torchvision has no classification network {architecture!r}")
    family = CLASSIFIERS[architecture].family
    with seeded(seed):
        model: nn.Module = torchvision.models.get_model(
            architecture, num_classes=classes, **_options(architecture, family, image_size)
        )
        if stem == "SmallImage":
            _shrink_stem(model, family)
    return model


def head_keys(architecture: str, image_size: int) -> frozenset[str]:
    """Names of the tensors whose shape follows the class count, auxiliary heads included."""
    family = CLASSIFIERS[architecture].family
    tensors = ("weight",) if family in _WITHOUT_BIAS else ("weight", "bias")
    layers = HEADS.get(architecture) or HEADS[family]
    keys = (f"{layer}.{tensor}" for layer in layers for tensor in tensors)
    spare = spare_keys(architecture, image_size)
    return frozenset(key for key in keys if not key.startswith(spare))


def spare_keys(architecture: str, image_size: int) -> tuple[str, ...]:
    """Prefixes of tensors that a file of weights may hold and this network leaves out."""
    return ("AuxLogits.",) if architecture == "inception_v3" and image_size < AUXILIARY_SIZE else ()


def _options(architecture: str, family: str, image_size: int) -> dict[str, Any]:
    """What the constructor must be told beyond the class count."""
    match family:
        case "ViT":
            return {"image_size": image_size}  # the length of its position embedding
        case "MaxViT":
            return {"input_size": (image_size, image_size)}  # its attention windows
        case "Inception":
            return _INCEPTION | {"aux_logits": not spare_keys(architecture, image_size)}
        case _:
            return {}


def _shrink_stem(model: nn.Module, family: str) -> None:
    if family != "ResNet":
        raise ConfigError(f"model.stem: SmallImage is for the ResNet family, not for {family}")
    wide = model.conv1
    model.conv1 = nn.Conv2d(3, wide.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as ResNet's own
    model.maxpool = nn.Identity()


def class_keys(build: Callable[[int], nn.Module]) -> frozenset[str]:
    """Names of the tensors whose shape follows the class count, of whatever network `build` makes of one."""
    with torch.device("meta"):
        three, four = build(3).state_dict(), build(4).state_dict()
    return frozenset(key for key, tensor in three.items() if tensor.shape != four[key].shape)


def steady_norms(model: nn.Module) -> nn.Module:
    """The same network with torch's own momentum in its BatchNorm layers.

    torchvision's MobileNets average their statistics over the last hundreds of steps, as a training on a million images
    likes it. Of a few hundred images, evaluation would see a network of long ago, and find nothing in any image.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return model


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initialise from a seed of our own, on the CPU generator alone: a GPU's generators are not ours to touch."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
