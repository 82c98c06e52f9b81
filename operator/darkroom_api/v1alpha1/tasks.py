"""What can be learned, from which data, by which networks; and the rules of `spec.vision` that follow from it."""

from enum import StrEnum
from typing import Any

from darkroom_api.v1alpha1.architectures import ARCHITECTURES, CLASSIFIERS, DETECTORS, SEGMENTERS, Architecture
from darkroom_api.v1alpha1.common import Rule


class Task(StrEnum):
    """What is learned from the images."""

    CLASSIFICATION = "Classification"
    SEGMENTATION = "Segmentation"
    DETECTION = "Detection"


class DataFormat(StrEnum):
    """How images and labels lie in the folder."""

    IMAGE_FOLDER = "ImageFolder"
    MASK_FOLDER = "MaskFolder"
    VOC = "Voc"
    COCO = "Coco"


FORMATS: dict[Task, tuple[DataFormat, ...]] = {
    Task.CLASSIFICATION: (DataFormat.IMAGE_FOLDER,),
    Task.SEGMENTATION: (DataFormat.MASK_FOLDER, DataFormat.VOC),
    Task.DETECTION: (DataFormat.COCO, DataFormat.VOC),
}
"""What each task can learn from."""

NETWORKS: dict[Task, dict[str, Architecture]] = {
    Task.CLASSIFICATION: CLASSIFIERS,
    Task.SEGMENTATION: SEGMENTERS,
    Task.DETECTION: DETECTORS,
}


def _fits(vision: Any) -> bool:
    needs = ARCHITECTURES[vision.model.architecture]
    most = needs.max_size or vision.image_size
    return bool(needs.min_size <= vision.image_size <= most and vision.image_size % needs.multiple_of == 0)


def size_rule() -> Rule:
    """One CEL rule for all architectures, the ones of equal needs together."""
    groups: dict[tuple[int, int, int | None], list[str]] = {}
    for name, needs in ARCHITECTURES.items():
        groups.setdefault((needs.min_size, needs.multiple_of, needs.max_size), []).append(name)
    parts = [
        f"(!(self.model.architecture in {sorted(names)}) || (self.imageSize >= {size} && "
        + (f"self.imageSize <= {most} && " if most else "")
        + f"self.imageSize % {multiple} == 0))"
        for (size, multiple, most), names in sorted(groups.items(), key=str)
    ]
    return Rule(
        cel=" && ".join(parts),
        message="imageSize is too small for the architecture, or not a multiple of its patch size (at least 63 for AlexNet, "
        "75 for Inception v3, 32 for ConvNeXt, VGG and detectors, 29 for DenseNet, 21 for SqueezeNet; a multiple of its patch "
        "for ViT, of 224 for MaxViT; 300 for ssd300_vgg16)",
        holds=_fits,
        field="imageSize",
    )


def task_rules() -> tuple[Rule, ...]:
    """Network, format and recipe must be of the task's kind."""
    formats = "; ".join(f"{task} from {' or '.join(formats)}" for task, formats in FORMATS.items())
    by_task = " && ".join(
        f"(self.model.architecture in {sorted(NETWORKS[task])}) == (self.task == '{task}')"
        for task in (Task.SEGMENTATION, Task.DETECTION)
    )
    return (
        Rule(
            cel=by_task,
            message="model.architecture must be a network for the task: classification networks by their plain names, "
            "deeplabv3_, fcn_ and lraspp_ for Segmentation, fasterrcnn_, fcos_, retinanet_, ssd300_ and ssdlite320_ for "
            "Detection",
            holds=lambda v: v.model.architecture in NETWORKS[v.task],
            field="task",
        ),
        Rule(
            cel=" || ".join(
                f"(self.task == '{task}' && self.data.format in {[str(name) for name in formats]})"
                for task, formats in FORMATS.items()
            ),
            message=f"data.format must be one that the task learns from: {formats}",
            holds=lambda v: v.data.format in FORMATS[v.task],
            field="task",
        ),
        Rule(
            cel="self.task == 'Classification' || (double(self.augmentation.mixup) == 0.0 && "
            "double(self.augmentation.cutmix) == 0.0 && !has(self.augmentation.randAugment))",
            message="augmentation.mixup, cutmix and randAugment are for Classification: they would move the image away "
            "from its masks and boxes",
            holds=lambda v: (
                v.task == Task.CLASSIFICATION
                or (
                    float(v.augmentation.mixup) == float(v.augmentation.cutmix) == 0
                    and v.augmentation.rand_augment is None
                )
            ),
            field="augmentation",
        ),
        Rule(
            cel="self.task != 'Detection' || double(self.schedule.labelSmoothing) == 0.0",
            message="schedule.labelSmoothing is for Classification and Segmentation",
            holds=lambda v: v.task != Task.DETECTION or float(v.schedule.label_smoothing) == 0,
            field="schedule",
        ),
        Rule(
            cel="self.task == 'Classification' || !has(self.transfer) || !has(self.transfer.cacheFeatures)",
            message="transfer.cacheFeatures is for Classification",
            holds=lambda v: v.task == Task.CLASSIFICATION or v.transfer is None or v.transfer.cache_features is None,
            field="transfer",
        ),
    )
