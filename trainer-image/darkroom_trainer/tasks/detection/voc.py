"""PASCAL VOC: JPEGImages, Annotations and ImageSets/Main."""

from xml.etree import ElementTree

from darkroom_trainer.data.place import Place
from darkroom_trainer.data.voc import find_image, read_names
from darkroom_trainer.errors import DataError
from darkroom_trainer.tasks.detection.data import BoxedImages, RawBox, RawImage, assemble

_FORBIDDEN = (b"<!DOCTYPE", b"<!ENTITY")
"""An annotation needs neither, and a few lines of them can fill any memory."""


def read_voc_boxes(path: Place) -> BoxedImages:
    """An XML file for each name of the lists; raises DataError that names the file and the object."""
    found = {split: [_read(path, name) for name in names] for split, names in read_names(path, "Main").items()}
    return assemble(path, found)


def _read(path: Place, name: str) -> RawImage:
    file = path / "Annotations" / f"{name}.xml"
    root = _parse(file)
    width, height = (int(_number(root, f"size/{side}", str(file))) for side in ("width", "height"))
    image = RawImage(find_image(path, name), width, height)
    for place, item in enumerate(root.iter("object"), start=1):
        image.boxes.append(_box(item, f"{file}: object {place}"))
    return image


def _parse(file: Place) -> ElementTree.Element:
    try:
        text = file.read_bytes()
        if any(word in text for word in _FORBIDDEN):
            raise DataError(f"{file} declares a document type or entities: an annotation has none")
        return ElementTree.fromstring(text)  # noqa: S314 - neither of the two is left
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    except ElementTree.ParseError as error:
        raise DataError(f"{file} is not XML: {error}") from error


def _box(item: ElementTree.Element, where: str) -> RawBox:
    name = (item.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{where} has no name")
    left, top, right, bottom = (_number(item, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax"))
    # VOC counts pixels from 1, and its last one belongs to the box.
    return RawBox(where, name, (left - 1, top - 1, right, bottom), (item.findtext("difficult") or "0").strip() == "1")


def _number(item: ElementTree.Element, path: str, where: str) -> float:
    text = item.findtext(path)
    try:
        return float(text or "")
    except ValueError:
        raise DataError(f"{where}: {path.replace('/', '.')} is {text!r}, not a number") from None
