"""torchvision's segmentation networks: heads for our classes, stages, and what of them a classification network fills."""

from functools import lru_cache

import torch
import torchvision
from torch import nn

from darkroom_trainer.models import build_model, class_keys, seeded, steady_norms
from darkroom_trainer.stages import Stage
from darkroom_trainer.weights import Backbone


def build(architecture: str, *, classes: int, seed: int = 0) -> nn.Module:
    """The network on the current default device, in training mode; the same seed gives the same weights.

    It takes float images [n, 3, H, W] and gives {"out": logits [n, classes, H, W]}, and "aux" beside it if it has an
    auxiliary head.
    """
    options = {} if architecture.startswith("lraspp") else {"aux_loss": True}
    with seeded(seed):
        model: nn.Module = torchvision.models.get_model(
            architecture, weights=None, weights_backbone=None, num_classes=classes, **options
        )
    return steady_norms(model)


@lru_cache
def head_keys(architecture: str) -> frozenset[str]:
    """Names of the tensors whose shape follows the class count, auxiliary heads included."""
    return class_keys(lambda classes: build(architecture, classes=classes))


@lru_cache
def backbone_of(architecture: str) -> Backbone:
    """What a file of the classification network behind it fills."""
    name = architecture.partition("_")[2]
    with torch.device("meta"):
        inner, outer = build_model(name, classes=2, image_size=224), build(architecture, classes=2)
    own = outer.state_dict()
    moved = {key: f"backbone.{key.removeprefix('features.')}" for key in inner.state_dict()}
    places = {key: place for key, place in moved.items() if place in own}
    return Backbone(name, places, moved.keys() - places.keys())


def stages_of(model: nn.Module) -> list[Stage]:
    """From the image to the head, by what they own: these networks are no chains, for their heads look at several stages."""
    layers: dict[str, nn.Module] = dict(model.backbone.named_children())  # type: ignore[union-attr,operator]
    if "layer1" in layers:
        names = [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]]
    else:
        halving = [name for name, layer in layers.items() if getattr(layer, "_is_cn", False)]
        names = _parts(list(layers), halving)
    stages = [
        Stage("stem" if number == 0 else f"stage{number}", (), tuple(layers[name] for name in part))
        for number, part in enumerate(names)
    ]
    auxiliary = getattr(model, "aux_classifier", None)
    if auxiliary is not None:  # it goes with the stage that it looks at
        looked_at = next(name for name, output in model.backbone.return_layers.items() if output == "aux")  # type: ignore[union-attr,operator]
        number = next(number for number, part in enumerate(names) if looked_at in part)
        stages[number] = Stage(stages[number].name, (), (*stages[number].owned, auxiliary))
    return [*stages, Stage("head", (), (model.classifier,))]  # type: ignore[arg-type]


def _parts(names: list[str], starts: list[str]) -> list[list[str]]:
    """The names in order, a new part at each start."""
    parts: list[list[str]] = [[]]
    for name in names:
        if name in starts:
            parts.append([])
        parts[-1].append(name)
    return parts
