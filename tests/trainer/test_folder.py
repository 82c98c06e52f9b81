"""What is found in a folder of class folders, and what is said about one that cannot be used."""

import os
from pathlib import Path

import numpy as np
import pytest

from darkroom_trainer.data.folder import read_folder
from darkroom_trainer.data.names import Names
from darkroom_trainer.data.split import Shares
from darkroom_trainer.errors import DataError


def touch(root: Path, *names: str) -> Path:
    """Empty files: listing must not open them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def numbered(folder: str, count: int) -> list[str]:
    return [f"{folder}/{index:03}.png" for index in range(count)]


def names_of(listing) -> list[str]:
    return list(listing.names)


def test_one_folder_of_classes_is_divided_80_10_10(tmp_path):
    touch(tmp_path, *numbered("dog", 20), *numbered("cat", 10))
    folder = read_folder(tmp_path)
    assert folder.classes == ("cat", "dog")
    assert {split: len(listing) for split, listing in folder.splits.items()} == {"train": 24, "val": 3, "test": 3}
    everything = sorted(name for listing in folder.splits.values() for name in names_of(listing))
    assert everything == sorted(numbered("dog", 20) + numbered("cat", 10))


def test_labels_follow_the_folders(tmp_path):
    touch(tmp_path, *numbered("dog", 10), *numbered("cat", 10))
    for listing in read_folder(tmp_path).splits.values():
        assert [("cat", "dog")[label] for label in listing.labels] == [n.split("/")[0] for n in names_of(listing)]


def test_folders_named_train_val_test_are_the_splits(tmp_path):
    for split, count in {"train": 3, "val": 2, "test": 1}.items():
        touch(tmp_path, *numbered(f"{split}/cat", count), *numbered(f"{split}/dog", count))
    folder = read_folder(tmp_path)
    assert folder.classes == ("cat", "dog")
    assert {split: len(listing) for split, listing in folder.splits.items()} == {"train": 6, "val": 4, "test": 2}
    assert names_of(folder.splits["test"]) == ["test/cat/000.png", "test/dog/000.png"]


def test_test_is_optional_and_may_lack_classes(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png", "val/b/2.png")
    assert list(read_folder(tmp_path).splits) == ["train", "val"]
    touch(tmp_path, "test/b/3.png")
    listing = read_folder(tmp_path).splits["test"]
    assert listing.labels.tolist() == [1]


def test_shares_and_seed(tmp_path):
    touch(tmp_path, *numbered("cat", 100), *numbered("dog", 100))
    halves = [read_folder(tmp_path, shares=Shares(0.5, 0.5, 0), seed=seed) for seed in (0, 0, 1)]
    assert [list(folder.splits) for folder in halves] == [["train", "val"]] * 3
    first, again, other = (names_of(folder.splits["val"]) for folder in halves)
    assert len(first) == 100
    assert first == again
    assert first != other


def test_extensions_in_any_case_nested_folders_and_hidden_files(tmp_path):
    touch(
        tmp_path,
        "cat/a.PNG", "cat/b.JPEG", "cat/c.jpg", "cat/deep/er/d.Jpg",
        "cat/.hidden.png", "cat/.cache/e.png", "cat/notes.txt", "cat/f.webp",
        ".git/g.png", "dog/h.png", "dog/i.png", "README.md",
    )  # fmt: skip
    folder = read_folder(tmp_path, shares=Shares(0.5, 0.5, 0))
    found = sorted(name for listing in folder.splits.values() for name in names_of(listing))
    assert found == ["cat/a.PNG", "cat/b.JPEG", "cat/c.jpg", "cat/deep/er/d.Jpg", "dog/h.png", "dog/i.png"]
    assert folder.ignored == 2


def test_a_class_may_be_a_link_but_a_circle_ends(tmp_path):
    touch(tmp_path / "elsewhere", *numbered("cat", 2))
    root = touch(tmp_path / "root", *numbered("dog", 2))
    (root / "cat").symlink_to(tmp_path / "elsewhere/cat")
    (root / "dog/again").symlink_to(root)
    assert read_folder(root, shares=Shares(0.5, 0.5, 0)).classes == ("cat", "dog")


def test_a_file_name_that_is_not_utf8_is_read(tmp_path):
    touch(tmp_path, *numbered("cat", 1), *numbered("dog", 2))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/cat/\xff.png")).touch()
    folder = read_folder(tmp_path, shares=Shares(0.5, 0.5, 0))
    assert "cat/\\xff.png" in [name for listing in folder.splits.values() for name in names_of(listing)]


def test_listing_opens_and_stats_nothing(tmp_path, monkeypatch):
    touch(tmp_path, *numbered("cat", 50), *numbered("dog", 50))

    def refuse(*_args, **_kwargs):
        raise AssertionError("asked about a single file")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "lstat", refuse)
    assert len(read_folder(tmp_path).classes) == 2


@pytest.mark.parametrize(
    ("files", "shares", "message"),
    [
        pytest.param([], None, r"data\.path: .*/data does not exist", id="missing"),
        pytest.param(["a.png"], None, "no class folders", id="images without class folders"),
        pytest.param(["cat/1.png"], None, "one class, 'cat'", id="one class"),
        pytest.param(["cat/1.png", "dog/1.txt"], None, r"class folder .*/dog has no PNG .*\(1 files of other", id="empty"),
        pytest.param(["cat/1.png", "dog/1.png", "dog/2.png"], None, "'cat' has 1 image", id="too small a class"),
        pytest.param(["train/a/1.png", "train/b/1.png"], None, "none named `val`", id="no val folder"),
        pytest.param(
            ["train/a/1.png", "train/b/1.png", "valid/a/1.png"], None, "there are train, valid", id="val misspelt"
        ),
        pytest.param(["Train/a/1.png", "Val/a/1.png"], None, "/Train would be a class: the split folders", id="case"),
        pytest.param(["train/a/1.png", "val/a/1.png"], None, r"train has one class", id="one class in train"),
        pytest.param(
            ["train/a/1.png", "train/b/1.png", "val/a/1.png"], None, r"val lacks classes .*: b", id="missing in val"
        ),
        pytest.param(
            ["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png", "val/c/1.png"],
            None, r"val has classes that .*train has not: c", id="unknown in val",
        ),
        pytest.param(
            ["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png", "test/x/1.png"],
            None, r"test has classes that .*train has not: x", id="unknown in test",
        ),
        pytest.param(
            ["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/x.txt"],
            None, r"class folder .*/val/b has no PNG", id="empty in val",
        ),
        pytest.param(
            ["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png"],
            Shares(0.8, 0.1, 0.1), r"already divided into train, val: remove data\.split", id="divided twice",
        ),
        pytest.param(
            [*numbered("a", 5), *numbered("b", 5)], Shares(0.8, 0.19, 0.01),
            r"share of 0\.01 leaves split `test` without images \(10 images in 2 classes\): choose other shares",
            id="tiny share",
        ),
    ],
)  # fmt: skip
def test_unusable(tmp_path, files, shares, message):
    with pytest.raises(DataError, match=message):
        read_folder(touch(tmp_path / "data", *files), shares=shares)


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file cannot be read as a folder"):
        read_folder(tmp_path / "file")


def test_a_class_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path, *numbered("cat", 2), *numbered("dog", 2))
    scandir = os.scandir

    def refuse(path):
        if path.endswith(b"/dog"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"class folder .*/dog cannot be read: Permission denied"):
        read_folder(tmp_path)


def test_names_are_two_arrays():
    raw = [b"a", b"", b"cat/\xff.png", "été.jpg".encode()]
    names = Names(raw)
    assert [names.raw(index) for index in range(len(names))] == raw
    assert list(names) == ["a", "", "cat/\\xff.png", "été.jpg"]
    with pytest.raises(IndexError):
        names[4]
    assert isinstance(names._ends, np.ndarray)
