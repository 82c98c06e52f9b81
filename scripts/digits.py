"""Write scikit-learn's 1,797 images of handwritten digits as PNG files, one folder per class.

    python scripts/digits.py FOLDER

The images come inside the scikit-learn package (8 x 8 pixels, from the UCI Optical Recognition of Handwritten Digits
data set): real data without a download.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_digits(folder: Path) -> int:
    """Write FOLDER/<digit>/<number>.png; returns the number of images. Files that are there already are kept."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
        file = folder / str(label) / f"{number:04d}.png"
        if not file.exists():
            Image.fromarray(image).save(file)
    return len(pixels)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"{write_digits(Path(sys.argv[1]))} images in {sys.argv[1]}")
