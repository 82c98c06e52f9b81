"""Semantic segmentation: a class for each pixel, cross-entropy, mean intersection over union."""

from darkroom_trainer.tasks.segmentation.answers import Segmenter
from darkroom_trainer.tasks.segmentation.task import Segmentation

__all__ = ["Segmentation", "Segmenter"]
