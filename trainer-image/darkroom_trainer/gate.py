"""Before the first step: what synthetic images are like on features of the network as it begins, and whether that will do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from darkroom_api.report import Fidelity
from darkroom_api.v1alpha1.synthetic import Gate
from darkroom_trainer.data.sampler import permutation
from darkroom_trainer.data.synthetic import Blended
from darkroom_trainer.errors import DataError, FidelityError
from darkroom_trainer.feed import Feed
from darkroom_trainer.report import decimal
from darkroom_trainer.synthetic.fidelity import Sample, figures
from darkroom_trainer.tasks.base import Batch, ImageSet, SampleRef


class Chosen:
    """Some samples of a split, numbered anew."""

    def __init__(self, images: ImageSet, refs: list[SampleRef]) -> None:
        self._images, self._refs = images, refs

    def __len__(self) -> int:
        return len(self._refs)

    def __getitem__(self, ref: SampleRef) -> Any:
        return self._images[self._refs[ref.index]]


def chosen(splits: Mapping[str, ImageSet], count: int, seed: int) -> dict[str, Chosen]:
    """The first synthetic images, and as many real ones of `train` and `val` as there are, in an order of the seed."""
    train = splits["train"]
    if not isinstance(train, Blended):
        raise TypeError("a gate is for a training split with synthetic images")

    def some(images: ImageSet) -> Chosen:
        order = permutation(len(images), seed, 0)[:count].tolist()
        return Chosen(images, [SampleRef(index, 0) for index in order])

    scenes = Chosen(train, [SampleRef(number, 0, synthetic=True) for number in range(count)])
    return {"synthetic": scenes, "train": some(train.real), "val": some(splits["val"])}


def measure(
    feed: Feed, model: nn.Module, sets: Mapping[str, Chosen], *, batch: int, stop: Callable[[], bool]
) -> Fidelity | None:
    """On all processes together; None if one was told to leave meanwhile. Every process must call this at the same place."""
    training, samples = model.training, {}
    model.eval()
    try:
        for name, images in sets.items():
            sample = _sample(feed, model, images, batch=batch, stop=stop)
            if sample is None:
                return None
            samples[name] = sample
    finally:
        model.train(training)
    found = feed.group.share(lambda: asdict(figures(samples["synthetic"], samples["train"], samples["val"])))
    return Fidelity(**{name: decimal(value) for name, value in found.items()})


def _sample(feed: Feed, model: nn.Module, images: Chosen, *, batch: int, stop: Callable[[], bool]) -> Sample | None:
    found: list[Sample] = []

    def look(_: Sequence[SampleRef], some: Batch) -> None:
        with feed.precision.autocast():
            found.append(feed.task.features(model, some))

    if not feed.each(images, batch=batch, stop=stop, work=look):
        return None
    gathered = feed.group.gather([_plain(sample) for sample in found])
    by_rank = [[Sample(*map(torch.from_numpy, rows)) for rows in part] for part in gathered]
    if sum(len(sample.images) for part in by_rank for sample in part) < 2:
        raise DataError(
            "vision.synthetic.gate: fewer than two images of a kind can be read: there is nothing to compare"
        )
    return in_order(by_rank)


def in_order(by_rank: Sequence[Sequence[Sample]]) -> Sample:
    """All as one, the images as they were dealt out, one to each process in turn: the figures go by places.

    Where images could not be read, those of other processes may come a little sooner.
    """
    joined = Sample.joined([sample for part in by_rank for sample in part])
    counts = [sum(len(sample.images) for sample in part) for part in by_rank]
    places = [turn * len(counts) + rank for rank, count in enumerate(counts) for turn in range(count)]
    return replace(joined, images=joined.images[torch.tensor(places).argsort()])


def _plain(sample: Sample) -> tuple[Any, Any, Any]:
    """As arrays, which need no memory that processes share."""
    return sample.images.numpy(), sample.parts.numpy(), sample.labels.numpy()


def check(gate: Gate, found: Fidelity) -> None:
    """Raises FidelityError with every threshold that is not met."""
    kid, auc, tstr, trtr = (float(value or 0) for value in (found.kid, found.auc, found.tstr, found.trtr))
    misses = []
    if gate.max_kid is not None and kid > float(gate.max_kid):
        misses.append(f"KID is {kid:.4g}, more than maxKid {gate.max_kid}")
    if gate.max_auc is not None and auc > float(gate.max_auc):
        misses.append(f"a probe tells them from real ones with an AUC of {auc:.4g}, more than maxAuc {gate.max_auc}")
    if gate.min_tstr_ratio is not None and tstr < float(gate.min_tstr_ratio) * trtr:
        misses.append(
            f"a probe that learned from them has an accuracy of {tstr:.4g}, from real ones {trtr:.4g}: less than "
            f"minTstrRatio {gate.min_tstr_ratio}"
        )
    if misses:
        raise FidelityError(
            f"the synthetic images are too far from the real ones: {'; '.join(misses)}: see vision.synthetic"
        )
