"""COCO: annotations/instances_<split><suffix>.json, and the images in the folder <split><suffix>."""

import json
from collections.abc import Mapping
from typing import Any

from darkroom_trainer.data.place import Place
from darkroom_trainer.data.split import SPLITS
from darkroom_trainer.errors import DataError
from darkroom_trainer.tasks.detection.data import BoxedImages, RawBox, RawImage, assemble


def read_coco(path: Place, *, masks: bool = False) -> BoxedImages:
    """As `instances_train2017.json` with `train2017/`; raises DataError that names the file and the annotation.

    masks: keep those of `train`, which every annotation must have then.
    """
    found: dict[str, list[RawImage]] = {}
    for split in SPLITS:
        files = sorted((path / "annotations").glob(f"instances_{split}*.json"))
        if len(files) > 1:
            raise DataError(f"{path / 'annotations'} has several files for {split}: {', '.join(f.name for f in files)}")
        if files:
            folder = files[0].stem.removeprefix("instances_")
            found[split] = _read(files[0], folder, path, masks=masks and split == "train")
        elif split != "test":
            raise DataError(f"{path / 'annotations'} has no instances_{split}*.json")
    return assemble(path, found)


def _read(file: Place, folder: str, root: Place, *, masks: bool) -> list[RawImage]:
    content = _parse(file)
    if not (root / folder).is_dir():
        raise DataError(f"{root / folder} does not exist: {file.name} has its images there")
    try:
        categories = {category["id"]: str(category["name"]) for category in content["categories"]}
        images = {image["id"]: _image(image, folder) for image in content["images"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: images need id, file_name, width and height, categories id and name: {error!r}"
        ) from error
    if len(images) < len(content["images"]):
        raise DataError(f"{file}: two images have the same id")
    for place, annotation in enumerate(content["annotations"]):
        box = _add(annotation, f"{file}: annotation {_id(annotation, place)}", images, categories)
        if masks:
            box.segment = _segment(annotation, box)
    return sorted(images.values(), key=lambda image: image.name)


def _parse(file: Place) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}") from error
    needed = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(not isinstance(content.get(key), list) for key in needed):
        raise DataError(f"{file} is no COCO file: lists named {', '.join(needed)} are expected")
    return content


def _image(image: Mapping[str, Any], folder: str) -> RawImage:
    return RawImage(f"{folder}/{image['file_name']}".encode(), int(image["width"]), int(image["height"]))


def _id(annotation: Any, place: int) -> str:
    return str(annotation["id"]) if isinstance(annotation, dict) and "id" in annotation else f"number {place}"


def _add(annotation: Any, where: str, images: Mapping[Any, RawImage], categories: Mapping[Any, str]) -> RawBox:
    try:
        image_id, category = annotation["image_id"], annotation["category_id"]
        left, top, width, height = (float(value) for value in annotation["bbox"])
        crowd = bool(annotation.get("iscrowd", 0))
        area = float(annotation["area"]) if annotation.get("area") is not None else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where} needs image_id, category_id and a bbox of four numbers: {error!r}") from error
    if image_id not in images:
        raise DataError(f"{where} is of image {image_id!r}, which the file does not list")
    if category not in categories:
        raise DataError(f"{where} is of class {category!r}, which the file does not list")
    box = (left, top, left + width, top + height)
    raw = RawBox(where, categories[category], box, crowd, area)
    images[image_id].boxes.append(raw)
    return raw


def _segment(annotation: Mapping[str, Any], box: RawBox) -> Any:
    """Polygons or run lengths; a crowd is never cut out, and needs none."""
    segment = annotation.get("segmentation")
    polygons = isinstance(segment, list) and segment and all(isinstance(p, list) and len(p) >= 6 for p in segment)
    runs = isinstance(segment, dict) and {"size", "counts"} <= segment.keys()
    if not (polygons or runs or box.crowd):
        raise DataError(f"{box.where} has no segmentation, which augmentation.copyPaste cuts objects out along")
    return segment or []
