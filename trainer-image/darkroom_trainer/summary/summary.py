"""The summary of a run while it goes on, written by rank 0 beside its checkpoints."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from darkroom_trainer.summary.page import write_page
from darkroom_trainer.summary.review import Review, jpeg
from darkroom_trainer.tasks import make_exported
from darkroom_trainer.tasks.base import ImageSet, NamedImages, SampleRef

log = logging.getLogger(__name__)
_DRAWN = ("Segmentation", "Detection")
"""Tasks whose answers are pictures."""
_MOST_PICTURES = 8
_LEAST_SCORE = 0.5


class Summary:
    """summary.html and review.json. None of it stops a training: what fails is logged, and that is all."""

    def __init__(self, run_dir: Path, splits: Mapping[str, ImageSet], *, speaks: bool) -> None:
        self._run_dir, self._splits, self._speaks = run_dir, splits, speaks

    def evaluated(self, review: Review | None) -> None:
        """After an evaluation: the page anew and, if it was the best so far, what the network gets wrong."""
        self._safely(lambda: self._evaluated(review))

    def _evaluated(self, review: Review | None) -> None:
        if review:
            review.illustrated(cast(NamedImages, self._splits[review.split])).write(self._run_dir)
        write_page(self._run_dir)

    def exported(self, model: nn.Module, description: Mapping[str, Any], *, epoch: int) -> None:
        """At the end: pictures of answers, of tasks whose answers are pictures."""
        if description.get("task") in _DRAWN:
            split = "test" if "test" in self._splits else "val"
            self._safely(lambda: self._draw(model, description, split, epoch))

    def _draw(self, model: nn.Module, description: Mapping[str, Any], split: str, epoch: int) -> None:
        images = self._splits[split]
        some = range(0, len(images), max(1, len(images) // _MOST_PICTURES))[:_MOST_PICTURES]
        originals = [Image.fromarray(images[SampleRef(index, 0)].pixels) for index in some]
        pictures = [jpeg(np.asarray(picture)) for picture in _drawn(model, description, originals)]
        Review(split, epoch, classes=description["classes"], pictures=pictures).write(self._run_dir)

    def ended(self) -> None:
        """The last page."""
        self._safely(lambda: write_page(self._run_dir))

    def _safely(self, write: Callable[[], object]) -> None:
        if not self._speaks:
            return
        try:
            write()
        except Exception:
            log.exception("the summary in %s could not be written; training goes on without it", self._run_dir)


@torch.inference_mode()
def _drawn(model: nn.Module, description: Mapping[str, Any], images: Sequence[Image.Image]) -> list[Image.Image]:
    exported, device = make_exported(description), next(model.parameters()).device
    model.eval()
    answers = [
        exported.answers(model, [exported.prepare(image)], device, top=1, least=_LEAST_SCORE)[0] for image in images
    ]
    return [answer.draw(image)[""] for answer, image in zip(answers, images, strict=True)]
