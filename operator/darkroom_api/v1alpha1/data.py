"""Where the images of a training are, and how they are divided."""

from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import ClaimName, Fraction, Model, Rule, Sha256, VolumePath
from darkroom_api.v1alpha1.tasks import DataFormat


class Split(Model):
    """Random split of one folder of classes, the same for the same seed on any machine."""

    rules = (
        Rule(
            cel="double(self.train) + double(self.val) + double(self.test) <= 1.000001",
            message="train, val and test must not add up to more than 1",
            holds=lambda s: float(s.train) + float(s.val) + float(s.test) <= 1.000001,
        ),
        Rule(
            cel="double(self.train) > 0.0 && double(self.val) > 0.0",
            message="train and val must be greater than 0",
            holds=lambda s: float(s.train) > 0.0 and float(s.val) > 0.0,
        ),
    )
    train: Annotated[Fraction, Field(description="Share of each class, or of a MaskFolder, to train on.")] = "0.8"
    val: Annotated[Fraction, Field(description="Share to choose the best epoch by.")] = "0.1"
    test: Annotated[Fraction, Field(description="Share to measure the chosen model once, at the end.")] = "0.1"
    seed: Annotated[int, Field(ge=0, le=2147483647, description="Seed of the shuffle.")] = 0


class Data(Model):
    """Where the images are, and how they are divided."""

    rules = (
        Rule(
            cel="!has(self.split) || self.format in ['ImageFolder', 'MaskFolder']",
            message="split divides an ImageFolder or a MaskFolder; a Voc or Coco data set says itself what its splits are",
            holds=lambda d: d.split is None or d.format in (DataFormat.IMAGE_FOLDER, DataFormat.MASK_FOLDER),
            field="split",
        ),
    )
    claim: Annotated[ClaimName, Field(description="PersistentVolumeClaim with the images; it is mounted read-only.")]
    path: Annotated[VolumePath, Field(description="Folder of the data set inside the claim, or of a pack of it.")] = "/"
    format: Annotated[
        DataFormat,
        Field(
            description="ImageFolder: one folder per class with PNG or JPEG files in it, either below `path` itself "
            "(then `split` divides it) or below `train`, `val` and optionally `test` folders in `path`. "
            "MaskFolder: folders `images` and `masks` with files of the same names, in `path` (then `split` divides them) or in "
            "`train`, `val` and `test`, and `classes.txt`. Voc: JPEGImages, ImageSets, and SegmentationClass or Annotations. "
            "Coco: annotations/instances_train*.json and images in a folder of the rest of its name, train*; the same for val."
        ),
    ] = DataFormat.IMAGE_FOLDER
    split: Annotated[
        Split | None,
        Field(
            description="How to divide one folder of images. Absent: the folders `train`, `val` and `test` are used if "
            "there is one named `train`, otherwise 80/10/10 with seed 0."
        ),
    ] = None
    pack_sha256: Annotated[
        Sha256 | None,
        Field(
            description="SHA-256 of the pack's pack.json, as `darkroom-trainer pack` prints it; the job fails if `path` holds "
            "another pack, or none. Absent: any pack, or a folder."
        ),
    ] = None
    max_corrupt_fraction: Annotated[
        Fraction,
        Field(description="Share of unreadable images that is skipped; beyond it the job fails and names the files."),
    ] = "0.01"
