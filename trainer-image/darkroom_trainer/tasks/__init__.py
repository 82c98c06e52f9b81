"""What can be learned: each task says how its images, network, loss and metrics work."""

from collections.abc import Mapping
from typing import Any

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.errors import ConfigError
from darkroom_trainer.tasks.base import Exported, Task


def make_task(config: TrainerConfig) -> Task:
    """The task that `spec.vision.task` names."""
    return _kinds(config.vision.task)[0](config)


def make_exported(description: Mapping[str, Any]) -> Exported:
    """The task of an exported model, by its description; raises ConfigError for one that is not known here."""
    return exported_kind(description)(description)


def exported_kind(description: Mapping[str, Any]) -> type[Exported]:
    """What can make use of a description."""
    return _kinds(description.get("task"))[1]


def _kinds(task: Any) -> tuple[type[Task], type[Exported]]:
    """Imported when asked for: a task may need libraries that the others do without."""
    match task:
        case "Classification":
            from darkroom_trainer.tasks import classification

            return classification.Classification, classification.Classifier
        case "Segmentation":
            from darkroom_trainer.tasks import segmentation

            return segmentation.Segmentation, segmentation.Segmenter
        case "Detection":
            from darkroom_trainer.tasks import detection

            return detection.Detection, detection.Detector
        case other:
            raise ConfigError(f"no trainer for task {other!r}")
