"""The model card: README.md beside the exported weights, as model hubs show it (Mitchell et al., "Model Cards for Model
Reporting", 2019; metadata as of huggingface.co/docs/hub/model-cards)."""

import json
from collections.abc import Mapping
from typing import Any

_PIPELINES = {
    "Classification": "image-classification",
    "Segmentation": "image-segmentation",
    "Detection": "object-detection",
}
_MOST_CLASSES = 200


def model_card(
    description: Mapping[str, Any],
    *,
    metrics: Mapping[str, float],
    recipe: Mapping[str, Any],
    images: Mapping[str, int],
    epoch: int,
) -> str:
    """Markdown. description: `Task.describe()`; recipe: `vision` as it is written; images: how many, by split; epoch: whose
    weights these are."""
    parts = [_metadata(description), _head(description), _use(description), _measured(metrics, epoch)]
    return "\n".join([*parts, _data(description, images), _limits(images), _recipe(recipe)])


def _metadata(description: Mapping[str, Any]) -> str:
    pipeline = _PIPELINES.get(description.get("task", ""))
    lines = ["library_name: darkroom", *([f"pipeline_tag: {pipeline}"] if pipeline else [])]
    return "\n".join(["---", *lines, f"tags: [{description.get('architecture', 'vision')}]", "---", ""])


def _head(description: Mapping[str, Any]) -> str:
    network, count = description.get("architecture", "A network"), len(description.get("classes", []))
    size = f", {description['imageSize']} pixels a side" if "imageSize" in description else ""
    title = f"# {network} for {description.get('task', 'images').lower()} with {count} classes"
    return f"{title}\n\nTrained by Darkroom on images of {count} classes{size}.\n"


def _use(description: Mapping[str, Any]) -> str:
    draw = "" if description.get("task") == "Classification" else " --draw drawn"
    return (
        "## Use\n\n"
        "`model.safetensors` has the weights, `model.json` what turns an image into the network's input.\n\n"
        f"```\npython -m darkroom_trainer predict . IMAGE...{draw}\n```\n\n"
        "```python\nfrom pathlib import Path\nfrom darkroom_trainer.export import load_model\n\n"
        'model, description = load_model(Path("."))\n```\n'
    )


def _measured(metrics: Mapping[str, float], epoch: int) -> str:
    rows = [f"| {name} | {value:.4f} |" for name, value in metrics.items()]
    table = "\n".join(["| metric | value |", "| --- | --- |", *rows])
    told = (
        "`val` chose these weights among the epochs, so its values are too good; `test` was measured once, afterwards."
    )
    return f"## Measured\n\nOf the weights of epoch {epoch}. {told}\n\n{table}\n"


def _data(description: Mapping[str, Any], images: Mapping[str, int]) -> str:
    counts = ", ".join(f"{count} in `{split}`" for split, count in images.items())
    classes = list(description.get("classes", []))
    more = f", and {len(classes) - _MOST_CLASSES} more" if len(classes) > _MOST_CLASSES else ""
    listed = ", ".join(f"`{name}`" for name in classes[:_MOST_CLASSES])
    return f"## Data\n\nImages: {counts}.\n\nClasses: {listed}{more}.\n"


def _limits(images: Mapping[str, int]) -> str:
    sentences = [
        "The values hold for images like those above.",
        "An image of something else gets one of the classes all the same, and confidences are not calibrated.",
        "How it treats groups of people, or other parts of the data, was not measured.",
    ]
    if "test" not in images:
        sentences.append("There was no test split: how it does on images that chose nothing is not known.")
    return "## Limits\n\n" + "\n".join(sentences) + "\n"


def _recipe(recipe: Mapping[str, Any]) -> str:
    return f"## Recipe\n\n`spec.vision` of the TrainingJob:\n\n```json\n{json.dumps(recipe, indent=2, ensure_ascii=False)}\n```\n"
