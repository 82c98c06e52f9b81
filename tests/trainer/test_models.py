"""How networks are built: their heads, stems and image sizes, and seeds that touch nothing global."""

import warnings

import pytest
import torch
from torch import nn

from darkroom_trainer.errors import ConfigError
from darkroom_trainer.models import AUXILIARY_SIZE, build_model
from tests.trainer.images import one_thread


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def test_the_seed_makes_the_weights_and_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    first, again, other = (build_model("resnet18", classes=2, image_size=32, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def test_small_image_stem_keeps_the_detail():
    model = build_model("resnet18", classes=2, image_size=32, stem="SmallImage")
    assert model.conv1.kernel_size == (3, 3)
    assert model.conv1.stride == (1, 1)
    maps = []
    model.layer1.register_forward_hook(lambda _module, _input, output: maps.append(output.shape))
    model(torch.zeros(2, 3, 32, 32))
    assert maps == [(2, 64, 32, 32)]


@pytest.mark.parametrize("architecture", ["resnext50_32x4d", "wide_resnet50_2"])
def test_small_image_stem_in_the_whole_family(architecture):
    model = build_model(architecture, classes=2, image_size=16, stem="SmallImage")
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 2)
    assert isinstance(model.maxpool, nn.Identity)


def test_small_image_stem_elsewhere_is_refused():
    with pytest.raises(ConfigError, match=r"model\.stem: SmallImage is for the ResNet family, not for VGG"):
        build_model("vgg11", classes=2, image_size=32, stem="SmallImage")


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="resnet19"):
        build_model("resnet19", classes=2, image_size=32)


def test_vit_has_a_position_for_every_patch():
    model = build_model("vit_b_16", classes=2, image_size=48)
    assert model.encoder.pos_embedding.shape[1] == 1 + 3 * 3


@pytest.mark.parametrize("size", [75, AUXILIARY_SIZE - 1, AUXILIARY_SIZE])
def test_inception_trains_its_auxiliary_head_where_the_image_allows(size):
    model = build_model("inception_v3", classes=2, image_size=size)
    output = model(torch.zeros(2, 3, size, size))
    assert isinstance(output, torch.Tensor) == (size < AUXILIARY_SIZE)
    assert not model.transform_input


def test_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for architecture in ("googlenet", "inception_v3"):
            build_model(architecture, classes=2, image_size=96)
