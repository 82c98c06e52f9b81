"""Fidelity: each figure against a reference, and what it says of the same and of different distributions."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import polynomial_kernel

from darkroom_trainer.synthetic.fidelity import Sample, accuracy, area_under_curve, figures, fitted, kid, separability


def normal(count: int, *, shift: float = 0.0, seed: int = 0, wide: int = 12) -> torch.Tensor:
    return torch.randn(count, wide, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def test_kid_is_the_unbiased_estimate_with_scikit_learns_kernel():
    first, second = normal(40), normal(30, shift=0.5, seed=1)
    xx, yy, xy = (
        polynomial_kernel(a.numpy(), b.numpy(), degree=3, gamma=1 / 12, coef0=1)
        for a, b in ((first, first), (second, second), (first, second))
    )
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    assert kid(first, second) == pytest.approx(sum(within) - 2 * xy.mean(), rel=1e-9)


def test_kid_is_unbiased():
    """Its mean over many draws of one distribution is 0; that of the biased estimate is not."""
    values = [kid(normal(30, seed=2 * n), normal(30, seed=2 * n + 1)) for n in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
    assert min(values) < 0
    assert kid(normal(100), normal(100, shift=1, seed=1)) > 10 * max(values)


def test_the_area_is_scikit_learns():
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 60), random.integers(0, 9, 60).astype(float)
    ours = area_under_curve(torch.from_numpy(scores), torch.from_numpy(labels))
    assert ours == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_is_scikit_learns(classes):
    features = normal(150)
    labels = (features[:, 0] * 2 + normal(150, seed=5)[:, 0]).clamp(0, classes - 1).round().long()
    ours = fitted(features, labels)(features).softmax(dim=1)
    theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(features.numpy(), labels.numpy())
    # of two classes scikit-learn fits one vector of weights: its penalty is that of two halves
    wanted = theirs.predict_proba(features.numpy()) if classes > 2 else None
    if wanted is None:
        half = LogisticRegression(C=2.0, tol=1e-8, max_iter=1000).fit(features.numpy(), labels.numpy())
        wanted = half.predict_proba(features.numpy())
    np.testing.assert_allclose(ours.numpy(), wanted, atol=2e-3)


def test_nobody_tells_apart_what_is_the_same():
    assert separability(normal(200), normal(200, seed=1)) == pytest.approx(0.5, abs=0.1)
    assert separability(normal(200), normal(150, shift=2, seed=1)) > 0.98


def test_each_image_is_judged_by_a_probe_that_has_not_seen_it():
    """With more features than images, a probe knows what it has seen by heart."""
    wide = 400
    assert separability(normal(60, wide=wide), normal(60, seed=1, wide=wide)) < 0.7


def test_classes_that_were_not_seen_are_never_right():
    parts, labels = normal(20), torch.arange(20) % 2 * 3
    assert fitted(parts, labels)(parts).argmax(dim=1).unique().tolist() == [0, 3]
    assert accuracy(parts[:0], labels[:0], parts, labels) == accuracy(parts, labels, parts[:0], labels[:0]) == 0


def sample(shift: float, seed: int, *, scale: float = 1.0) -> Sample:
    """Three classes along three axes."""
    labels = torch.arange(90) % 3
    images = scale * (normal(90, seed=seed) + 3 * torch.eye(12, dtype=torch.float64)[labels] + shift)
    return Sample(images, images, labels)


def test_figures_of_good_and_of_bad_images():
    real, val = sample(0, 1), sample(0, 2)
    good, bad = figures(sample(0, 3), real, val), figures(sample(4, 4), real, val)
    assert good.kid < 0.05 < bad.kid
    assert good.auc < 0.65 and bad.auc > 0.99
    assert good.tstr > 0.9 * good.trtr > 0.8
    noise = sample(0, 5)
    wrong = figures(Sample(noise.images, noise.parts, (noise.labels + 1) % 3), real, val)
    assert wrong.tstr < 0.2 and wrong.gain < -0.1
    louder = figures(sample(0, 3, scale=50), sample(0, 1, scale=50), sample(0, 2, scale=50))
    assert vars(louder) == pytest.approx(vars(good), abs=1e-6)


def test_only_classes_that_both_have_are_tested():
    real, val, some = sample(0, 1), sample(0, 2), sample(0, 3)
    kept = some.labels < 2
    found = figures(Sample(some.images, some.parts[kept], some.labels[kept]), real, val)
    assert found.tstr > 0.8
