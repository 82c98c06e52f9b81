"""What a network gets wrong: confusions of a split, and the samples with the largest losses."""

import base64
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image

from darkroom_trainer.files import replace_text
from darkroom_trainer.tasks.base import Exchange, NamedImages, SampleRef, Verdicts

REVIEW_FILE = "review.json"
_MOST_MISTAKES = 24
_SIDE = 128  # pixels of a picture


@dataclass(frozen=True)
class Mistake:
    """One sample. truth, found: class numbers; confidence: the probability given to `found`; name: of its file."""

    loss: float
    index: int
    truth: int
    found: int
    confidence: float
    name: str = ""
    picture: str = ""
    """A JPEG in base64."""


@dataclass(frozen=True)
class Review:
    """Of a whole split. counts: samples by (truth, found), numbers of `classes`; mistakes: the worst first; pictures:
    answers drawn into some of its images, JPEGs in base64."""

    split: str
    epoch: int
    classes: Sequence[str] = ()
    counts: Mapping[tuple[int, int], int] = field(default_factory=dict)
    mistakes: Sequence[Mistake] = ()
    pictures: Sequence[str] = ()

    def illustrated(self, images: NamedImages) -> "Review":
        """With the pictures that the network saw, and their files' names; images: the split itself."""
        shown = [
            replace(m, name=images.name(m.index), picture=jpeg(images[SampleRef(m.index, 0)].pixels))
            for m in self.mistakes
        ]
        return replace(self, mistakes=shown)

    def write(self, run_dir: Path) -> None:
        """Replace the run's review as a whole; raises OSError."""
        content = {
            "split": self.split,
            "epoch": self.epoch,
            "classes": list(self.classes),
            "counts": [[truth, found, count] for (truth, found), count in sorted(self.counts.items())],
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
            "pictures": list(self.pictures),
        }
        replace_text(run_dir / REVIEW_FILE, json.dumps(content))

    @classmethod
    def read(cls, run_dir: Path) -> Self | None:
        """None where there is none that can be read."""
        try:
            content = json.loads((run_dir / REVIEW_FILE).read_text(encoding="utf-8"))
            content["counts"] = {(truth, found): count for truth, found, count in content["counts"]}
            content["mistakes"] = [Mistake(**mistake) for mistake in content["mistakes"]]
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError):
            return None


class Reviewer:
    """Collects the verdicts of one evaluation on one process; on the device until they are asked for."""

    def __init__(self) -> None:
        self._indices: list[int] = []
        self._verdicts: list[torch.Tensor] = []

    def add(self, refs: Iterable[SampleRef], verdicts: Verdicts, valid: torch.Tensor) -> None:
        """Those of one batch; samples that could not be read are left out later."""
        self._indices += [ref.index for ref in refs]
        columns = (verdicts.loss, verdicts.truth, verdicts.found, verdicts.confidence, valid)
        self._verdicts.append(torch.stack([column.double() for column in columns], dim=1))

    def review(self, split: str, epoch: int, classes: Sequence[str], group: Exchange) -> Review | None:
        """Of all processes, on each of them; None if the task gives no verdicts. Every process calls it at the same place."""
        counts, worst = Counter[tuple[int, int]](), list[Mistake]()
        if self._verdicts:
            rows = torch.cat(self._verdicts).cpu().numpy()
            counts, worst = _counted(rows), _worst(rows, np.array(self._indices))
        gathered = group.gather((counts, worst))
        total = sum((part for part, _ in gathered), Counter[tuple[int, int]]())
        if not total:
            return None
        mistakes = sorted((m for _, part in gathered for m in part), key=lambda m: (-m.loss, m.index))
        return Review(split, epoch, classes, dict(total), mistakes[:_MOST_MISTAKES])


def _counted(rows: np.ndarray) -> Counter[tuple[int, int]]:
    valid = rows[rows[:, 4] > 0]
    pairs, counts = np.unique(valid[:, 1:3].astype(int), axis=0, return_counts=True)
    return Counter({(int(truth), int(found)): int(count) for (truth, found), count in zip(pairs, counts, strict=True)})


def _worst(rows: np.ndarray, indices: np.ndarray) -> list[Mistake]:
    wrong = np.flatnonzero((rows[:, 4] > 0) & (rows[:, 1] != rows[:, 2]))
    order = wrong[np.lexsort((indices[wrong], -rows[wrong, 0]))][:_MOST_MISTAKES]
    return [
        Mistake(float(loss), int(indices[row]), int(truth), int(found), float(confidence))
        for row in order
        for loss, truth, found, confidence, _ in [rows[row]]
    ]


def jpeg(pixels: np.ndarray) -> str:
    """uint8 [H, W, 3] as a small picture in base64."""
    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return base64.b64encode(file.getvalue()).decode()
