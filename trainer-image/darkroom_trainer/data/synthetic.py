"""Synthetic images as a part of the training split: recipes from the specification, classes by name, and the split itself."""

from collections.abc import Sequence
from typing import Any, Protocol

from darkroom_api.v1alpha1.synthetic import Fractals, Scenes, Synthetic, SyntheticSource
from darkroom_trainer.data.sampler import derive_seed
from darkroom_trainer.errors import DataError
from darkroom_trainer.synthetic.scene import Recipe, Scene, render
from darkroom_trainer.synthetic.shapes import CLASSES
from darkroom_trainer.tasks.base import ImageSet, SampleRef


class Endless(Protocol):
    """Synthetic samples by the number in a SampleRef, in the form of the real ones."""

    def __getitem__(self, ref: SampleRef) -> Any: ...


class Blended:
    """A training split of real images, with synthetic ones beside them."""

    def __init__(self, real: ImageSet, synthetic: Endless) -> None:
        self.real, self.synthetic = real, synthetic

    def __len__(self) -> int:
        return len(self.real)

    def __getitem__(self, ref: SampleRef) -> Any:
        return self.synthetic[ref] if ref.synthetic else self.real[ref]


class Renderer:
    """Scenes by number; `labels` are the data set's classes, by class of the recipe.

    Their seed is one that nobody writes test data with: what is trained on is never what is measured on.
    """

    def __init__(self, recipe: Recipe, classes: Sequence[str], *, seed: int) -> None:
        self._recipe, self._seed = recipe, derive_seed("scenes", seed)
        self.labels = tuple(classes.index(name) for name in recipe.classes)

    def __call__(self, number: int) -> Scene:
        return render(self._recipe, seed=self._seed, index=number)


def renderer(
    synthetic: Synthetic,
    classes: Sequence[str],
    *,
    size: int,
    seed: int,
    alone: bool = False,
    without: Sequence[str] = (),
) -> Renderer:
    """Of scenes of `size` pixels a side for a data set with these classes.

    alone: one object in each; without: classes of the data set that are no objects. Raises DataError where a class and
    a shape do not go together by name.
    """
    scenes = synthetic.scenes or Scenes()
    shapes = matched(scenes.classes, [name for name in classes if name not in without])
    return Renderer(recipe_of(scenes, shapes, size=size, alone=alone), classes, seed=seed)


def fractal_classes(synthetic: Synthetic | None) -> int:
    """Classes that a network's head must have for fractals; 0 without them."""
    fractals = synthetic is not None and synthetic.source == SyntheticSource.FRACTALS
    return (synthetic.fractals or Fractals()).classes if synthetic and fractals else 0


def recipe_of(scenes: Scenes, shapes: Sequence[str], *, size: int, alone: bool) -> Recipe:
    """What the renderer is told; diameters become radii, and what may be hidden what must be seen."""
    return Recipe(
        size=(size, size),
        classes=tuple(shapes),
        objects=(1, 1) if alone else (scenes.min_objects, scenes.max_objects),
        radius=(float(scenes.min_size) / 2, float(scenes.max_size) / 2),
        tilt=float(scenes.perspective),
        texture=float(scenes.texture),
        light=float(scenes.light),
        blur=(0.0, float(scenes.blur)),
        noise=(0.0, float(scenes.noise)),
        least_seen=1 - float(scenes.occlusion),
    )


def matched(wanted: Sequence[str] | None, classes: Sequence[str]) -> list[str]:
    """The shapes to render: those that are asked for, or all classes of the data set; raises DataError."""
    shapes = list(wanted or classes)
    if unknown := [name for name in shapes if name not in CLASSES]:
        hint = "" if wanted else "; name those to render in vision.synthetic.scenes.classes"
        raise DataError(
            f"vision.synthetic: there is no shape for {_listed(unknown)}, there are {', '.join(CLASSES)}{hint}"
        )
    if strangers := [name for name in shapes if name not in classes]:
        raise DataError(
            f"vision.synthetic.scenes.classes: the data set has no class {_listed(strangers)}, it has {_listed(classes)}"
        )
    return shapes


def _listed(names: Sequence[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
