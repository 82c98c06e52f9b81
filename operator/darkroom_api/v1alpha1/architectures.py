"""The architectures of torchvision by name and task, and the image sizes that each can take."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """What a spec must respect: `min_size`, `multiple_of` and, where there is one, `max_size` of the square input, in pixels.

    They were found by trying: a training step on two images and an evaluation of one. The API's own least is 16.
    """

    family: str
    min_size: int = 16
    multiple_of: int = 1
    max_size: int | None = None


CLASSIFIERS: dict[str, Architecture] = {
    "alexnet": Architecture("AlexNet", 63),
    "convnext_base": Architecture("ConvNeXt", 32),
    "convnext_large": Architecture("ConvNeXt", 32),
    "convnext_small": Architecture("ConvNeXt", 32),
    "convnext_tiny": Architecture("ConvNeXt", 32),
    "densenet121": Architecture("DenseNet", 29),
    "densenet161": Architecture("DenseNet", 29),
    "densenet169": Architecture("DenseNet", 29),
    "densenet201": Architecture("DenseNet", 29),
    "efficientnet_b0": Architecture("EfficientNet"),
    "efficientnet_b1": Architecture("EfficientNet"),
    "efficientnet_b2": Architecture("EfficientNet"),
    "efficientnet_b3": Architecture("EfficientNet"),
    "efficientnet_b4": Architecture("EfficientNet"),
    "efficientnet_b5": Architecture("EfficientNet"),
    "efficientnet_b6": Architecture("EfficientNet"),
    "efficientnet_b7": Architecture("EfficientNet"),
    "efficientnet_v2_l": Architecture("EfficientNet"),
    "efficientnet_v2_m": Architecture("EfficientNet"),
    "efficientnet_v2_s": Architecture("EfficientNet"),
    "googlenet": Architecture("Inception"),
    "inception_v3": Architecture("Inception", 75),
    "maxvit_t": Architecture("MaxViT", 224, 224),
    "mnasnet0_5": Architecture("MNASNet"),
    "mnasnet0_75": Architecture("MNASNet"),
    "mnasnet1_0": Architecture("MNASNet"),
    "mnasnet1_3": Architecture("MNASNet"),
    "mobilenet_v2": Architecture("MobileNet"),
    "mobilenet_v3_large": Architecture("MobileNet"),
    "mobilenet_v3_small": Architecture("MobileNet"),
    "regnet_x_16gf": Architecture("RegNet"),
    "regnet_x_1_6gf": Architecture("RegNet"),
    "regnet_x_32gf": Architecture("RegNet"),
    "regnet_x_3_2gf": Architecture("RegNet"),
    "regnet_x_400mf": Architecture("RegNet"),
    "regnet_x_800mf": Architecture("RegNet"),
    "regnet_x_8gf": Architecture("RegNet"),
    "regnet_y_128gf": Architecture("RegNet"),
    "regnet_y_16gf": Architecture("RegNet"),
    "regnet_y_1_6gf": Architecture("RegNet"),
    "regnet_y_32gf": Architecture("RegNet"),
    "regnet_y_3_2gf": Architecture("RegNet"),
    "regnet_y_400mf": Architecture("RegNet"),
    "regnet_y_800mf": Architecture("RegNet"),
    "regnet_y_8gf": Architecture("RegNet"),
    "resnet101": Architecture("ResNet"),
    "resnet152": Architecture("ResNet"),
    "resnet18": Architecture("ResNet"),
    "resnet34": Architecture("ResNet"),
    "resnet50": Architecture("ResNet"),
    "resnext101_32x8d": Architecture("ResNet"),
    "resnext101_64x4d": Architecture("ResNet"),
    "resnext50_32x4d": Architecture("ResNet"),
    "shufflenet_v2_x0_5": Architecture("ShuffleNet"),
    "shufflenet_v2_x1_0": Architecture("ShuffleNet"),
    "shufflenet_v2_x1_5": Architecture("ShuffleNet"),
    "shufflenet_v2_x2_0": Architecture("ShuffleNet"),
    "squeezenet1_0": Architecture("SqueezeNet", 21),
    "squeezenet1_1": Architecture("SqueezeNet", 17),
    "swin_b": Architecture("Swin"),
    "swin_s": Architecture("Swin"),
    "swin_t": Architecture("Swin"),
    "swin_v2_b": Architecture("Swin"),
    "swin_v2_s": Architecture("Swin"),
    "swin_v2_t": Architecture("Swin"),
    "vgg11": Architecture("VGG", 32),
    "vgg11_bn": Architecture("VGG", 32),
    "vgg13": Architecture("VGG", 32),
    "vgg13_bn": Architecture("VGG", 32),
    "vgg16": Architecture("VGG", 32),
    "vgg16_bn": Architecture("VGG", 32),
    "vgg19": Architecture("VGG", 32),
    "vgg19_bn": Architecture("VGG", 32),
    "vit_b_16": Architecture("ViT", 16, 16),
    "vit_b_32": Architecture("ViT", 32, 32),
    "vit_h_14": Architecture("ViT", 28, 14),
    "vit_l_16": Architecture("ViT", 16, 16),
    "vit_l_32": Architecture("ViT", 32, 32),
    "wide_resnet101_2": Architecture("ResNet"),
    "wide_resnet50_2": Architecture("ResNet"),
}

RESNETS = frozenset(name for name, needs in CLASSIFIERS.items() if needs.family == "ResNet")

SEGMENTERS: dict[str, Architecture] = {
    "deeplabv3_mobilenet_v3_large": Architecture("MobileNet"),
    "deeplabv3_resnet101": Architecture("ResNet"),
    "deeplabv3_resnet50": Architecture("ResNet"),
    "fcn_resnet101": Architecture("ResNet"),
    "fcn_resnet50": Architecture("ResNet"),
    "lraspp_mobilenet_v3_large": Architecture("MobileNet"),
}
"""By the family of their backbone."""

DETECTORS: dict[str, Architecture] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": Architecture("MobileNet", 32),
    "fasterrcnn_mobilenet_v3_large_fpn": Architecture("MobileNet", 32),
    "fasterrcnn_resnet50_fpn": Architecture("ResNet", 32),
    "fasterrcnn_resnet50_fpn_v2": Architecture("ResNet", 32),
    "fcos_resnet50_fpn": Architecture("ResNet", 32),
    "retinanet_resnet50_fpn": Architecture("ResNet", 32),
    "retinanet_resnet50_fpn_v2": Architecture("ResNet", 32),
    "ssd300_vgg16": Architecture("VGG", 300, max_size=300),  # its boxes are laid out for this size alone
    "ssdlite320_mobilenet_v3_large": Architecture("MobileNet", 32),
}
"""By the family of their backbone."""

ARCHITECTURES = CLASSIFIERS | SEGMENTERS | DETECTORS
