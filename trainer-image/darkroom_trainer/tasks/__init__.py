"""What can be learned: each task says how its images, network, loss and metrics work."""

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.tasks.base import Task


def make_task(config: TrainerConfig) -> Task:
    """The task that `spec.vision.task` names."""
    from darkroom_trainer.tasks.classification import Classification

    match config.vision.task:
        case "Classification":
            return Classification(config)
        case other:
            raise ValueError(f"no trainer for task {other!r}")
