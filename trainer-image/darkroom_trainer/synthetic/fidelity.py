"""How close synthetic images are to real ones, and what they are worth, on features of a network: four figures.

No torch.distributed, no files: features in, figures out, in float64 on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

Rows = torch.Tensor | Sequence[torch.Tensor]

_FOLDS = 5
_PENALTY = 1.0
"""Weight of half the squared norm of a probe's weights against the sum of losses, as scikit-learn's C=1."""


@dataclass(frozen=True)
class Sample:
    """What is known of some images.

    images: [n, d], a row each; parts: [m, d], a row for each labelled part of an image: all of it in a classification, an
    object or the pixels of a class otherwise; labels: int64 [m].
    """

    images: torch.Tensor
    parts: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def of(cls, images: Rows, parts: Rows, labels: Sequence[int]) -> "Sample":
        """Of rows on any device."""
        return cls(_rows(images), _rows(parts), torch.tensor(labels, dtype=torch.int64))

    @classmethod
    def joined(cls, samples: Sequence["Sample"]) -> "Sample":
        """All of them as one; those without images say nothing of their width."""
        full = [sample for sample in samples if len(sample.images)]
        parts = [sample for sample in full if len(sample.parts)]
        return cls(
            torch.cat([sample.images for sample in full]),
            torch.cat([sample.parts for sample in parts]),
            torch.cat([sample.labels for sample in parts]),
        )


def _rows(rows: Rows) -> torch.Tensor:
    stacked = torch.stack(list(rows)) if len(rows) else torch.zeros(0, 0)
    return stacked.double().cpu()


@dataclass(frozen=True)
class Figures:
    """kid: 0 for the same distribution; auc: 0.5 where a probe cannot tell synthetic from real.

    tstr, trtr: accuracy on real validation images of a probe that learned from synthetic or real ones; gain: what real and
    synthetic ones together give beyond real ones alone.
    """

    kid: float
    auc: float
    tstr: float
    trtr: float
    gain: float


def figures(synthetic: Sample, real: Sample, val: Sample) -> Figures:
    """Of features that are centred on the real ones and scaled by one number: thresholds mean the same for any network."""
    synthetic, real, val = (_standardised(sample, real) for sample in (synthetic, real, val))
    shared = torch.isin(val.labels, synthetic.labels) & torch.isin(val.labels, real.labels)
    tested = val.parts[shared], val.labels[shared]
    trtr = accuracy(real.parts, real.labels, *tested)
    both = torch.cat([real.parts, synthetic.parts]), torch.cat([real.labels, synthetic.labels])
    return Figures(
        kid=kid(real.images, synthetic.images),
        auc=separability(real.images, synthetic.images),
        tstr=accuracy(synthetic.parts, synthetic.labels, *tested),
        trtr=trtr,
        gain=accuracy(*both, *tested) - trtr,
    )


def _standardised(sample: Sample, real: Sample) -> Sample:
    mean = real.images.double().mean(dim=0)
    scale = real.images.double().var(dim=0).mean().sqrt().clamp(min=1e-30)  # of a fresh network, features may be tiny
    return Sample((sample.images.double() - mean) / scale, (sample.parts.double() - mean) / scale, sample.labels)


def kid(first: torch.Tensor, second: torch.Tensor) -> float:
    """Kernel Inception Distance (Binkowski et al., "Demystifying MMD GANs", ICLR 2018): the unbiased estimate of the squared
    maximum mean discrepancy with the kernel (x.y / d + 1)^3, here on features of any network. It may be below 0."""
    within = [_off_diagonal_mean(_kernel(some, some)) for some in (first, second)]
    return float(sum(within) - 2 * _kernel(first, second).mean())


def _kernel(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first @ second.T / first.shape[1] + 1) ** 3


def _off_diagonal_mean(matrix: torch.Tensor) -> torch.Tensor:
    count = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()) / (count * (count - 1))


def separability(real: torch.Tensor, synthetic: torch.Tensor) -> float:
    """Area under the ROC curve of a logistic probe that tells synthetic from real, cross-validated.

    Each image is judged by a probe that has not seen it, of as many images of either kind; 0.5 is chance.
    """
    count = min(len(real), len(synthetic))
    features = torch.cat([real[:count], synthetic[:count]])
    labels = torch.arange(2 * count) // count
    folds = torch.arange(2 * count) % count % _FOLDS
    scores = torch.zeros(2 * count, dtype=torch.float64)
    for fold in range(min(_FOLDS, count)):
        held = folds == fold
        probe = fitted(features[~held], labels[~held])
        logits = probe(features[held])
        scores[held] = logits[:, 1] - logits[:, 0]
    return area_under_curve(scores, labels)


def area_under_curve(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of pairs of a 1 and a 0 in which the 1 has the higher score; a tie counts half."""
    ones, zeros = scores[labels == 1], scores[labels == 0]
    wins = (ones[:, None] > zeros[None]).double() + 0.5 * (ones[:, None] == zeros[None]).double()
    return float(wins.mean())


def accuracy(parts: torch.Tensor, labels: torch.Tensor, tested: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean over the classes of what a probe fitted to the parts gets right; 0 if there is nothing to fit or to test."""
    if len(parts) == 0 or len(tested) == 0:
        return 0.0
    found = fitted(parts, labels)(tested).argmax(dim=1)
    shares = [(found[truth == label] == label).double().mean() for label in truth.unique()]
    return float(torch.stack(shares).mean())


class Probe:
    """A linear classifier: features [n, d] to logits [n, classes]; classes that it has not seen have none."""

    def __init__(self, weights: torch.Tensor, bias: torch.Tensor, seen: torch.Tensor) -> None:
        self._weights, self._bias, self._seen = weights, bias, seen

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        logits = torch.full((len(features), int(self._seen.max()) + 1), float("-inf"), dtype=torch.float64)
        logits[:, self._seen] = features @ self._weights.T + self._bias
        return logits


def fitted(features: torch.Tensor, labels: torch.Tensor) -> Probe:
    """Multinomial logistic regression with an L2 penalty, by L-BFGS to its minimum: no learning rate and no luck."""
    seen, targets = labels.unique(return_inverse=True)
    weights = torch.zeros(len(seen), features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(seen), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weights, bias], max_iter=200, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        solver.zero_grad()
        fit = functional.cross_entropy(features @ weights.T + bias, targets, reduction="sum")
        total = (fit + _PENALTY * (weights**2).sum() / 2) / len(features)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[arg-type]
    return Probe(weights.detach(), bias.detach(), seen)
