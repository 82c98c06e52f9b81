"""Object detection: boxes with classes, the network's own losses, COCO's mean average precision."""

from darkroom_trainer.tasks.detection.answers import Detector
from darkroom_trainer.tasks.detection.task import Detection

__all__ = ["Detection", "Detector"]
