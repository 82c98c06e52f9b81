"""COCO's mean average precision of what was found in a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from darkroom_trainer.tasks.detection.data import Annotated

MOST = 100
"""Boxes per image that count, the likeliest ones: COCO's number."""


@dataclass(frozen=True)
class Judged:
    """An image, what is in it, and what was found. Boxes in its own pixels, likeliest first; labels from 0.

    index: place in its split.
    """

    index: int
    truth: Annotated
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def mean_average_precision(images: Sequence[Judged], classes: Sequence[str]) -> dict[str, float]:
    """map over IoU 0.50 to 0.95, map50, map75, and recall of 100 boxes an image; zeros if nothing was found or is there."""
    truth, found = _truth(images, classes), [row for image in images for row in _found(image)]
    if not found or not truth["annotations"]:
        return {"map": 0.0, "map50": 0.0, "map75": 0.0, "recall": 0.0}
    reference = COCO(truth)
    evaluation = COCOeval_faster(reference, reference.loadRes(found), iouType="bbox", print_function=_silent)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    stats = [max(0.0, float(value)) for value in evaluation.stats]  # -1 stands for nothing to find
    return {"map": stats[0], "map50": stats[1], "map75": stats[2], "recall": stats[8]}


def _silent(*_: Any) -> None:
    """It would print its table."""


def _truth(images: Sequence[Judged], classes: Sequence[str]) -> dict[str, Any]:
    """As a COCO file has it."""
    rows: list[dict[str, Any]] = []
    for image in images:
        for box, label, crowd, area in zip(
            image.truth.boxes, image.truth.labels, image.truth.crowd, image.truth.areas, strict=True
        ):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image.index,
                    "category_id": int(label),
                    "bbox": _xywh(box),
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    return {
        "images": [{"id": image.index, "width": image.truth.width, "height": image.truth.height} for image in images],
        "annotations": rows,
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes)],
    }


def _found(image: Judged) -> list[dict[str, Any]]:
    return [
        {"image_id": image.index, "category_id": int(label), "bbox": _xywh(box), "score": float(score)}
        for box, label, score in zip(image.boxes, image.labels, image.scores, strict=True)
    ]


def _xywh(box: np.ndarray) -> list[float]:
    left, top, right, bottom = (float(value) for value in box)
    return [left, top, right - left, bottom - top]
