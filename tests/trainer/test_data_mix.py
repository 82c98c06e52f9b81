"""MixUp and CutMix: what is mixed, by how much, and that a generator decides it alone."""

import pytest
import torch

from darkroom_trainer.data.mix import mix

N, SIZE = 8, 16


def mixed(seed: int = 0, valid=None, *, mixup: float = 0, cutmix: float = 0):
    """Image i is filled with i, so that a pixel tells whose it is."""
    images = torch.arange(N).float().view(N, 1, 1, 1).expand(N, 3, SIZE, SIZE).contiguous()
    valid = torch.ones(N) if valid is None else valid
    generator = torch.Generator().manual_seed(seed)
    return mix(images, torch.arange(N), valid, mixup=mixup, cutmix=cutmix, generator=generator)


def test_off_changes_nothing_and_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    images = torch.rand(N, 3, 4, 4)
    result = mix(images, torch.arange(N), torch.ones(N), mixup=0, cutmix=0, generator=generator)
    assert result.images is images
    assert result.share == 1
    assert torch.equal(generator.get_state(), state)


def test_mixup_is_the_labels_mixture():
    result = mixed(mixup=0.8)
    expected = result.share * result.targets + (1 - result.share) * result.others
    torch.testing.assert_close(result.images.mean(dim=(1, 2, 3)), expected.float())
    assert result.images.flatten(1).std(dim=1).max() < 1e-5


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_pastes_a_rectangle_of_the_share_it_states(seed):
    result = mixed(seed, cutmix=1)
    for image, own, other in zip(result.images, result.targets, result.others, strict=True):
        foreign = image[0] != own
        if own == other:
            assert not foreign.any()
            continue
        assert (image[0][foreign] == other).all()
        assert foreign.float().mean().item() == pytest.approx(1 - result.share)
        rows, columns = foreign.any(dim=1).sum(), foreign.any(dim=0).sum()
        assert foreign.sum() == rows * columns, "a rectangle"


def test_with_both_each_batch_draws_one():
    kinds = ["mixup" if mixed(seed, mixup=1, cutmix=1).images.frac().any() else "cutmix" for seed in range(60)]
    assert 15 < kinds.count("mixup") < 45


def test_equal_generators_give_equal_mixes():
    torch.manual_seed(1)
    first = mixed(5, mixup=0.2, cutmix=1)
    torch.manual_seed(2)
    second = mixed(5, mixup=0.2, cutmix=1)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.others, second.others)
    assert first.share == second.share
    assert not torch.equal(first.others, mixed(6, mixup=0.2, cutmix=1).others)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_blank_is_mixed_into_no_image(kind):
    valid = torch.ones(N)
    valid[3] = 0
    for seed in range(10):
        result = mixed(seed, valid, **{kind: 1.0})
        assert not ((result.others == 3) & (result.targets != 3)).any()


def test_a_batch_of_one_stays_as_it_is():
    images = torch.rand(1, 3, 4, 4)
    generator = torch.Generator()
    result = mix(images, torch.tensor([0]), torch.ones(1), mixup=1, cutmix=1, generator=generator)
    assert torch.equal(result.images, images)
