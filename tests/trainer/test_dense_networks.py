"""Every network for masks and boxes: a training step at its smallest image, its stages, and files that it starts from."""

import gc

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from darkroom_api.v1alpha1.architectures import DETECTORS, SEGMENTERS
from darkroom_trainer.errors import ConfigError
from darkroom_trainer.models import build_model
from darkroom_trainer.tasks.detection import networks as detectors
from darkroom_trainer.tasks.segmentation import networks as segmenters
from darkroom_trainer.weights import load_weights
from tests.trainer.images import one_thread

CLASSES = 5


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield
    gc.collect()


def build(architecture: str, *, classes: int = CLASSES, seed: int = 0) -> nn.Module:
    networks = segmenters if architecture in SEGMENTERS else detectors
    return networks.build(architecture, classes=classes, seed=seed)


def stages(architecture: str, model: nn.Module):
    return segmenters.stages_of(model) if architecture in SEGMENTERS else detectors.stages_of(architecture, model)


def backbone(architecture: str):
    return (segmenters if architecture in SEGMENTERS else detectors).backbone_of(architecture)


def test_the_tables_are_torchvisions():
    listed = torchvision.models.list_models
    assert sorted(SEGMENTERS) == sorted(listed(module=torchvision.models.segmentation))
    others = {"keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"}
    assert sorted(DETECTORS) == sorted(set(listed(module=torchvision.models.detection)) - others)


@pytest.mark.parametrize("architecture", sorted(SEGMENTERS))
def test_segmenters_train_a_step_at_16_pixels(architecture):
    model = build(architecture).train()
    outputs = model(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert all(logits.shape == (2, CLASSES, 16, 16) for logits in outputs.values())
    sum(logits.square().mean() for logits in outputs.values()).backward()
    check_gradients(model)
    with torch.inference_mode():
        assert model.eval()(torch.zeros(1, 3, 16, 16))["out"].shape == (1, CLASSES, 16, 16)


@pytest.mark.parametrize("architecture", sorted(DETECTORS))
def test_detectors_train_a_step_at_their_smallest_image(architecture):
    """One of the two images is empty."""
    size = DETECTORS[architecture].min_size
    model = build(architecture).train()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[2.0, 3.0, size - 4.0, size / 2]])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([CLASSES])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    sum(model(images, targets).values()).backward()
    check_gradients(model)
    with torch.inference_mode():
        (answer,) = model.eval()(images[:1])
    assert answer["boxes"].shape[1:] == (4,)
    assert answer["boxes"].dtype == torch.float32


def check_gradients(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"DDP would wait for {name}, which has no part in the loss"
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("architecture", sorted(SEGMENTERS | DETECTORS))
def test_each_parameter_belongs_to_one_stage(architecture):
    with torch.device("meta"):
        model = build(architecture)
    found = stages(architecture, model)
    owned = [id(parameter) for stage in found for parameter in stage.parameters()]
    assert sorted(owned) == sorted(id(parameter) for parameter in model.parameters())
    assert found[0].name == "stem"
    assert found[-1].name == "head"
    assert all(stage.parameters() for stage in found)
    places = set(backbone(architecture).places.values())
    own = {id(p) for name, p in model.named_parameters() if name in places}
    below = {id(p) for stage in found[:-1] for p in stage.parameters()}
    assert own <= below, "what a classification network fills is what transfer learning may freeze"


@pytest.mark.parametrize(
    ("architecture", "name", "layers"),
    [
        ("retinanet_resnet50_fpn", "resnet50", 3),
        ("fcos_resnet50_fpn", "resnet50", 1),
        ("fasterrcnn_resnet50_fpn", "resnet50", 5),
        ("ssd300_vgg16", "vgg16", 4),
    ],
)
def test_last_stages_opens_what_trainable_backbone_layers_opens(architecture, name, layers, monkeypatch):
    """Compared with torchvision's own network, in which weights of the backbone are only said to be there."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    monkeypatch.setattr(
        type(weights), "get_state_dict", lambda *_, **__: build_model(name, classes=1000, image_size=224).state_dict()
    )
    reference = torchvision.models.get_model(
        architecture, weights=None, weights_backbone=weights, trainable_backbone_layers=layers, num_classes=CLASSES + 1
    )
    theirs = {name for name, parameter in reference.named_parameters() if parameter.requires_grad}
    model = build(architecture)
    parts = stages(architecture, model)
    opened = {id(p) for stage in parts[len(parts) - 1 - layers :] for p in stage.parameters()}
    ours = {name for name, parameter in model.named_parameters() if id(parameter) in opened}
    assert {name for name in ours ^ theirs if ".bn" not in name and "downsample.1" not in name} == set()


@pytest.mark.parametrize(
    "architecture",
    [
        "lraspp_mobilenet_v3_large",
        "fcn_resnet50",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "ssdlite320_mobilenet_v3_large",
        "fcos_resnet50_fpn",
    ],
)
def test_a_file_of_the_classification_network_fills_the_backbone(architecture, tmp_path):
    inner = backbone(architecture)
    source = build_model(inner.architecture, classes=1000, image_size=224, seed=7)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model, before = build(architecture), build(architecture).state_dict()
    report = load_weights(model, tmp_path / "w.safetensors", backbone=inner)
    after, given = model.state_dict(), source.state_dict()
    assert all(torch.equal(after[place], given[key]) for key, place in inner.places.items())
    fresh = after.keys() - set(inner.places.values())
    assert all(torch.equal(after[key], before[key]) for key in fresh)
    assert set(report.dropped) == set(inner.unused)


@pytest.mark.parametrize("architecture", sorted(SEGMENTERS | DETECTORS))
def test_the_backbone_takes_every_convolution_of_the_classification_network(architecture):
    """Except the last three blocks of SSDlite's, which are half as wide."""
    inner = backbone(architecture)
    with torch.device("meta"):
        given = build_model(inner.architecture, classes=2, image_size=224).state_dict()
    convolutions = {key for key in given if key.startswith(("features.", "layer")) and given[key].ndim == 4}
    left_out = {key.split(".")[1] for key in convolutions - inner.places.keys()}
    assert left_out == ({"13", "14", "15", "16"} if architecture.startswith("ssdlite") else set())


def test_a_backbone_of_another_network_is_refused(tmp_path):
    save_file(build_model("resnet18", classes=10, image_size=32).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="do not fit the network: missing"):
        load_weights(build("fcn_resnet50"), tmp_path / "w.safetensors", backbone=backbone("fcn_resnet50"))


@pytest.mark.parametrize(
    "architecture",
    ["lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"],
)
def test_weights_of_another_class_count_replace_all_but_the_head(architecture, tmp_path):
    networks = segmenters if architecture in SEGMENTERS else detectors
    donor = build(architecture, classes=20, seed=3)
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    model, head = build(architecture), networks.head_keys(architecture)
    report = load_weights(model, tmp_path / "w.safetensors", head=head, backbone=backbone(architecture))
    assert set(report.dropped) == head
    given, own = donor.state_dict(), model.state_dict()
    assert all(torch.equal(own[key], given[key]) for key in report.kept)
    same = build(architecture, classes=20)
    assert load_weights(same, tmp_path / "w.safetensors", head=head, backbone=backbone(architecture)).dropped == ()


@pytest.mark.parametrize("architecture", ["fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn"])
def test_names_of_torchvisions_first_releases_are_understood(architecture, tmp_path):
    """The published files have them; torchvision renames while it loads, and so must what we make of them."""
    model = build(architecture)
    old = {}
    for key, tensor in model.state_dict().items():
        name = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        if "fpn.inner_blocks" in name or "fpn.layer_blocks" in name:
            name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if name.count(".0.") else name
        if "_head.conv." in name:
            head, _, rest = name.partition("conv.")
            number, _, last = rest.split(".")
            name = f"{head}conv.{2 * int(number)}.{last}"
        old[name] = tensor
    assert old.keys() != model.state_dict().keys()
    torch.save(old, tmp_path / "old.pth")
    reference = build(architecture, seed=1)
    state = {key: tensor.clone() for key, tensor in old.items()}
    reference.load_state_dict(state)  # torchvision's own renaming
    ours = build(architecture, seed=2)
    load_weights(ours, tmp_path / "old.pth", backbone=backbone(architecture))
    expected = reference.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in ours.state_dict().items())


def test_boxes_are_computed_in_float32_under_autocast():
    model = build("ssdlite320_mobilenet_v3_large").eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        (answer,) = model(torch.zeros(1, 3, 64, 64))
    assert answer["boxes"].dtype == answer["scores"].dtype == torch.float32
