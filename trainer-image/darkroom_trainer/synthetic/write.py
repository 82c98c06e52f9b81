"""Scenes as files, in every format that the trainer reads: data to try it with, and what its tests learn from."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from darkroom_trainer.synthetic.scene import Recipe, Scene, render

BACKGROUND = "background"
_PER_SPLIT = 1_000_000
"""Scenes of a split are numbered from a multiple of this: no split shares one with another."""


def scenes(recipe: Recipe, counts: Mapping[str, int], *, seed: int = 0) -> Iterator[tuple[str, str, Scene]]:
    """(split, name, scene) of as many scenes per split as `counts` says."""
    for number, (split, count) in enumerate(counts.items()):
        for index in range(count):
            yield split, f"{index:06}", render(recipe, seed=seed, index=number * _PER_SPLIT + index)


def write_class_folder(folder: Path, recipe: Recipe, counts: Mapping[str, int], *, seed: int = 0) -> None:
    """<split>/<class>/: ImageFolder; the recipe must have one object in each scene."""
    for split, name, scene in scenes(recipe, counts, seed=seed):
        _save(scene.pixels, folder / split / recipe.classes[scene.things[0].label] / f"{name}.png")


def write_mask_folder(folder: Path, recipe: Recipe, counts: Mapping[str, int], *, seed: int = 0) -> None:
    """<split>/images, <split>/masks and classes.txt: MaskFolder."""
    for split, name, scene in scenes(recipe, counts, seed=seed):
        _save(scene.pixels, folder / split / "images" / f"{name}.png")
        _save(scene.label_map(), folder / split / "masks" / f"{name}.png")
    (folder / "classes.txt").write_text("\n".join((BACKGROUND, *recipe.classes)) + "\n", encoding="utf-8")


def write_coco(folder: Path, recipe: Recipe, counts: Mapping[str, int], *, seed: int = 0) -> None:
    """<split>/ and annotations/instances_<split>.json: Coco."""
    contents: dict[str, dict[str, Any]] = {split: _coco_header(recipe) for split in counts}
    for split, name, scene in scenes(recipe, counts, seed=seed):
        _save(scene.pixels, folder / split / f"{name}.png")
        _add_to_coco(contents[split], f"{name}.png", scene)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, content in contents.items():
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")


def write_voc(folder: Path, recipe: Recipe, counts: Mapping[str, int], *, seed: int = 0) -> None:
    """JPEGImages, Annotations, SegmentationClass, ImageSets and classes.txt: Voc, for either task."""
    listed: dict[str, list[str]] = {split: [] for split in counts}
    for split, number, scene in scenes(recipe, counts, seed=seed):
        name = f"{split}_{number}"
        listed[split].append(name)
        _save(scene.pixels, folder / "JPEGImages" / f"{name}.jpg")
        _save(scene.label_map(), folder / "SegmentationClass" / f"{name}.png")
        _write_xml(folder / "Annotations" / f"{name}.xml", name, scene, recipe)
    for kind in ("Main", "Segmentation"):
        for split, names in listed.items():
            path = folder / "ImageSets" / kind / f"{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(names) + "\n", encoding="utf-8")
    (folder / "classes.txt").write_text("\n".join((BACKGROUND, *recipe.classes)) + "\n", encoding="utf-8")


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def _coco_header(recipe: Recipe) -> dict[str, Any]:
    categories = [{"id": number, "name": name} for number, name in enumerate(recipe.classes, start=1)]
    return {"images": [], "annotations": [], "categories": categories}


def _add_to_coco(content: dict[str, Any], file_name: str, scene: Scene) -> None:
    height, width = scene.pixels.shape[:2]
    image_id = len(content["images"]) + 1
    content["images"].append({"id": image_id, "file_name": file_name, "width": width, "height": height})
    for thing in scene.things:
        left, top, right, bottom = thing.box
        content["annotations"].append(
            {
                "id": len(content["annotations"]) + 1,
                "image_id": image_id,
                "category_id": thing.label + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(thing.mask.sum()),
                "iscrowd": 0,
                "segmentation": {"size": [height, width], "counts": run_lengths(thing.mask)},
            }
        )


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE: lengths of runs of 0 and 1 in turn, down the columns."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    bounds = np.concatenate([[0], changes, [mask.size]]) if len(changes) % 2 == 0 else changes
    runs = np.diff(bounds)
    return [int(run) for run in (runs[:-1] if runs[-1] == 0 else runs)]


def _write_xml(path: Path, name: str, scene: Scene, recipe: Recipe) -> None:
    height, width = scene.pixels.shape[:2]
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{name}.jpg"
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    for thing in scene.things:
        left, top, right, bottom = thing.box
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = recipe.classes[thing.label]
        ElementTree.SubElement(item, "difficult").text = "0"
        box = ElementTree.SubElement(item, "bndbox")
        # VOC counts pixels from 1 and names the last one that belongs to the box.
        for tag, value in (("xmin", left + 1), ("ymin", top + 1), ("xmax", right), ("ymax", bottom)):
            ElementTree.SubElement(box, tag).text = str(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8")
