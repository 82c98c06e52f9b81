"""What is published of networks, against the metadata of the installed torchvision; and which ones a search begins with."""

import pytest
import torchvision

from darkroom_api.portfolio import MOST_GFLOPS, NEED_WEIGHTS, PUBLISHED, portfolio
from darkroom_api.v1alpha1.architectures import ARCHITECTURES
from darkroom_api.v1alpha1.auto import Quality
from darkroom_api.v1alpha1.tasks import NETWORKS, Task


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_published(name: str):
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    (measured,) = meta["_metrics"].values()
    accuracy = next(measured[key] for key in ("acc@1", "miou", "box_map") if key in measured)
    assert (PUBLISHED[name].accuracy, PUBLISHED[name].gflops) == (accuracy, meta["_ops"])


@pytest.mark.parametrize(
    ("task", "quality", "pretrained", "networks"),
    [
        (Task.CLASSIFICATION, Quality.FAST, False, ["mobilenet_v3_large", "efficientnet_b3", "resnet18"]),
        (
            Task.CLASSIFICATION,
            Quality.BALANCED,
            True,
            ["mobilenet_v3_large", "resnet50", "efficientnet_b4", "convnext_tiny", "vit_b_32"],
        ),
        (
            Task.CLASSIFICATION,
            Quality.BEST,
            False,
            ["mobilenet_v3_large", "efficientnet_v2_s", "resnet152", "convnext_base"],
        ),
        (Task.SEGMENTATION, Quality.FAST, False, ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"]),
        (
            Task.DETECTION,
            Quality.BALANCED,
            False,
            [
                "fasterrcnn_mobilenet_v3_large_320_fpn",
                "fasterrcnn_mobilenet_v3_large_fpn",
                "fcos_resnet50_fpn",
                "retinanet_resnet50_fpn_v2",
            ],
        ),
    ],
)
def test_portfolios(task, quality, pretrained, networks):
    assert list(portfolio(task, quality, pretrained=pretrained)) == networks


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("quality", Quality)
@pytest.mark.parametrize("pretrained", [False, True])
def test_a_portfolio_keeps_its_promises(task, quality, pretrained):
    """Of the task, within its work per image, cheap accuracy first, and nothing that cannot learn."""
    found = portfolio(task, quality, pretrained=pretrained)
    worth = [PUBLISHED[name].accuracy / PUBLISHED[name].gflops for name in found]
    assert found
    assert set(found) <= NETWORKS[task].keys()
    assert worth == sorted(worth, reverse=True)
    assert all(PUBLISHED[name].gflops <= MOST_GFLOPS[task][quality] for name in found)
    assert pretrained or not any(ARCHITECTURES[name].family in NEED_WEIGHTS for name in found)
