"""Write rendered scenes with labels: data to try segmentation and detection with.

    python scripts/scenes.py FOLDER [--format MaskFolder|Coco|Voc] [--train 400] [--val 80] [--size 128] [--seed 0]

Shapes of six classes under changing light, texture, blur and noise, partly behind each other. The same arguments give
the same pixels anywhere.
"""

import argparse
from pathlib import Path

from darkroom_trainer.synthetic.scene import Recipe
from darkroom_trainer.synthetic.write import write_coco, write_mask_folder, write_voc

WRITERS = {"MaskFolder": write_mask_folder, "Coco": write_coco, "Voc": write_voc}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--format", choices=WRITERS, default="Coco")
    parser.add_argument("--train", type=int, default=400, help="images to train on (default: 400)")
    parser.add_argument("--val", type=int, default=80, help="images to choose the best epoch by (default: 80)")
    parser.add_argument("--size", type=int, default=128, help="pixels a side (default: 128)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    recipe = Recipe(size=(given.size, given.size))
    WRITERS[given.format](given.folder, recipe, {"train": given.train, "val": given.val}, seed=given.seed)
    print(f"{given.train + given.val} images in {given.folder}")


if __name__ == "__main__":
    main()
