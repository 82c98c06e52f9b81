"""Every network of the table: its limits on the image size, one real training step, export and back.

All of them are really built and really trained a step, at their smallest image. Export and back is checked for one size
of each kind, and for all with DARKROOM_EVERY_NETWORK=1 (some minutes more, and 12 GiB written one after another).
"""

import gc
import os

import pytest
import torch
import torchvision
from torch.nn import functional

from darkroom_api.v1alpha1.architectures import CLASSIFIERS
from darkroom_trainer.export import export_model, load_model
from darkroom_trainer.models import build_model, head_keys
from darkroom_trainer.stages import stages_of
from tests.trainer.images import one_thread

CLASSES = 7
API_LEAST = 16
IMAGES = 8
"""With two, BatchNorm over a map of one pixel has gradients beyond float32 in the deepest networks."""

EXPORTED = {
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
    "resnet50", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_16",
}  # fmt: skip
EVERY_NETWORK = os.environ.get("DARKROOM_EVERY_NETWORK") == "1"


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def smallest_size(architecture: str) -> int:
    """The smallest legal image: what makes even the largest network quick enough to really train a step."""
    needs = CLASSIFIERS[architecture]
    least = max(needs.min_size, API_LEAST)
    return -(-least // needs.multiple_of) * needs.multiple_of


def test_the_table_is_torchvisions():
    assert sorted(CLASSIFIERS) == sorted(torchvision.models.list_models(module=torchvision.models))


@pytest.mark.parametrize("architecture", sorted(CLASSIFIERS))
def test_trains_a_step_and_survives_export(architecture, tmp_path):
    size = smallest_size(architecture)
    model = build_model(architecture, classes=CLASSES, image_size=size)
    head = head_keys(architecture, size)
    assert {key for key, tensor in model.state_dict().items() if tensor.shape[:1] == (CLASSES,)} == head
    try:
        train_one_step(model, size)
        check_stages(model, architecture, size)
        if architecture in EXPORTED or EVERY_NETWORK:
            export_and_compare(model, architecture, size, tmp_path)
    finally:
        del model
        gc.collect()


@pytest.mark.parametrize(
    "architecture",
    ["alexnet", "convnext_tiny", "densenet121", "inception_v3", "squeezenet1_0", "squeezenet1_1", "vgg11"],
)
def test_smaller_images_do_not_fit(architecture):
    """The limit is no wider than it must be, and two images are enough at it."""
    size = CLASSIFIERS[architecture].min_size
    with torch.device("meta"):
        model = build_model(architecture, classes=CLASSES, image_size=size)
        model.train()(torch.empty(2, 3, size, size))
        model.eval()(torch.empty(1, 3, size, size))
        with pytest.raises((RuntimeError, ValueError)):
            model.train()(torch.empty(2, 3, size - 1, size - 1))


def train_one_step(model: torch.nn.Module, size: int) -> None:
    images = torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
    output = model.train()(images)
    logits = [output] if isinstance(output, torch.Tensor) else list(output)
    assert all(part.shape == (IMAGES, CLASSES) for part in logits)
    sum(functional.cross_entropy(part, torch.arange(IMAGES) % CLASSES) for part in logits).backward()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"DDP would wait for {name}, which has no part in the loss"
            assert torch.isfinite(parameter.grad).all(), name
            # By direction only: BatchNorm over a few values makes gradients of any size.
            parameter.sub_(parameter.grad.sign_(), alpha=1e-5)
            parameter.grad = None


def check_stages(model: torch.nn.Module, architecture: str, size: int) -> None:
    """One after another they are the network, and each parameter belongs to exactly one of them."""
    stages = stages_of(architecture, model.eval())
    owned = [id(parameter) for stage in stages for parameter in stage.parameters()]
    assert sorted(owned) == sorted(id(parameter) for parameter in model.parameters())
    assert stages[-1].name == "head"
    assert {
        id(p)
        for n, p in model.named_parameters()
        if n in head_keys(architecture, size) and not n.lower().startswith("aux")
    } <= {id(p) for p in stages[-1].parameters()}
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        passed = images
        for stage in stages:
            passed = stage(passed)
        assert torch.equal(passed, model(images))


def export_and_compare(model, architecture, size, folder) -> None:
    description = {
        "task": "Classification",
        "architecture": architecture,
        "stem": "Standard",
        "imageSize": size,
        "classes": [str(index) for index in range(CLASSES)],
        "preprocessing": {"resize": size, "crop": size, "mean": [0, 0, 0], "std": [1, 1, 1]},
    }
    export_model(model, folder / "model", description=description, metrics={})
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model.eval()(image)
        loaded = load_model(folder / "model")[0]
        assert torch.isfinite(expected).all()
        assert torch.equal(loaded(image), expected)
    (folder / "model/model.safetensors").unlink()
