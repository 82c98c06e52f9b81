"""Packs: the same samples as from the folder, of each task and format; and which packs are refused, in which words."""

import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from darkroom_api.v1alpha1.tasks import DataFormat
from darkroom_trainer.__main__ import main
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.data.packed import Pack
from darkroom_trainer.errors import ConfigError, DataError
from darkroom_trainer.host import Host
from darkroom_trainer.pack import write_pack
from darkroom_trainer.synthetic.write import write_coco, write_mask_folder, write_voc
from darkroom_trainer.tasks import make_task
from darkroom_trainer.tasks.base import SampleRef
from darkroom_trainer.train import train
from tests.trainer.images import vision_config, write_class, write_colors
from tests.trainer.members import newest
from tests.trainer.scenes import detection_config, recipe, segmentation_config

COUNTS = {"train": 4, "val": 2}
TINY = recipe(48, radius=(0.2, 0.35))
RECIPE = {"crop": "RandomResized", "erasing": "0.5"}


def classes(folder: Path) -> None:
    write_colors(folder, 8)
    (folder / "red/003.png").write_bytes(b"no image")
    (folder / "blue/notes.txt").write_text("left alone")


def masks(folder: Path) -> None:
    write_mask_folder(folder, TINY, COUNTS)


def masks_voc(folder: Path) -> None:
    write_voc(folder, TINY, COUNTS)


def boxes(folder: Path) -> None:
    write_coco(folder, TINY, COUNTS)


DATA = [
    pytest.param(classes, vision_config, "ImageFolder", id="classes"),
    pytest.param(masks, segmentation_config, "MaskFolder", id="masks"),
    pytest.param(masks_voc, segmentation_config, "Voc", id="masks of VOC"),
    pytest.param(boxes, detection_config, "Coco", id="boxes"),
    pytest.param(masks_voc, detection_config, "Voc", id="boxes of VOC"),
]


def task_of(folder: Path, configure, format_: str):
    config = configure(
        folder, folder / "run", data={"claim": "x", "format": format_}, augmentation=RECIPE, imageSize=64
    )
    return make_task(config)


def samples(task) -> list:
    """Every sample of every split in two epochs."""
    splits = task.splits()
    return [
        splits[split][SampleRef(index, epoch)]
        for split in sorted(splits)
        for epoch in range(2)
        for index in range(len(splits[split]))
    ]


def same(ours, theirs) -> bool:
    return bool(np.all(np.asarray(pickle.dumps(ours)) == np.asarray(pickle.dumps(theirs))))


@pytest.mark.parametrize(("write", "configure", "format_"), DATA)
def test_a_pack_gives_the_samples_of_its_folder(tmp_path, write, configure, format_):
    write(tmp_path / "folder")
    pack = write_pack(tmp_path / "folder", tmp_path / "pack", shard_bytes=15_000)
    assert len(pack.manifest.shards) > 1
    folder, packed = (task_of(tmp_path / name, configure, format_) for name in ("folder", "pack"))
    expected = samples(folder)
    (tmp_path / "folder").rename(tmp_path / "moved")  # nothing of it is read any more
    assert packed.fingerprint() == folder.fingerprint()
    found = samples(packed)
    assert len(found) == len(expected) > 8
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("write", "configure", "format_"), DATA)
def test_decoded_images_are_smaller_and_labels_stay_in_place(tmp_path, write, configure, format_):
    """The shorter side goes from 48 (classes: 32) to 40 (20) pixels; frames still count those of the file."""
    write(tmp_path / "folder")
    size = 20 if format_ == "ImageFolder" else 40
    pack = write_pack(tmp_path / "folder", tmp_path / "pack", size=size, format_=DataFormat(format_))
    stored = pack.index.pixels[pack.index.pixels[:, 0] > 0]
    assert (stored[:, :2].min(axis=1) == size).all()
    assert (stored[:, 2:] == (40, 32) if format_ == "ImageFolder" else stored[:, 2:] == 48).all()
    for ours, theirs in zip(
        samples(task_of(tmp_path / "pack", configure, format_)),
        samples(task_of(tmp_path / "folder", configure, format_)),
        strict=True,
    ):
        for name, value in vars(theirs).items():
            if name != "pixels":
                assert same(getattr(ours, name), value), name
        if format_ != "ImageFolder":  # a random crop of classes is drawn from the pixels there are
            assert np.abs(ours.pixels.astype(int) - theirs.pixels).mean() < 8


def test_a_loader_process_opens_the_shards_itself(tmp_path):
    classes(tmp_path / "folder")
    write_pack(tmp_path / "folder", tmp_path / "pack")
    images = task_of(tmp_path / "pack", vision_config, "ImageFolder").splits()["train"]
    first = images[SampleRef(0, 0)]  # opens one here
    assert images._files._descriptors
    other = pickle.loads(pickle.dumps(images))  # noqa: S301 - our own
    assert not other._files._descriptors
    assert same(other[SampleRef(0, 0)], first)


def test_a_run_goes_on_from_a_pack_of_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DARKROOM_CPU_LIMIT", "1")
    classes(tmp_path / "folder")
    write_pack(tmp_path / "folder", tmp_path / "pack")
    small = {"architecture": "squeezenet1_1"}
    fields = {
        "model": small,
        "batchSize": 8,
        "schedule": {"epochs": 1},
        "data": {"claim": "x", "maxCorruptFraction": "0.5"},
    }

    def run(folder: str, into: str, **facts) -> dict[str, torch.Tensor]:
        config = vision_config(tmp_path / folder, tmp_path / into, **fields)
        train(config, make_task(config), Host(clock=Clock(now()), **facts))
        return newest(tmp_path / into)

    expected = run("folder", "undisturbed")
    run("folder", "continued", stop=lambda: True)
    found = run("pack", "continued")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


# --- The pack itself ---


def test_the_same_files_make_the_same_pack_and_other_bytes_another(tmp_path):
    classes(tmp_path / "folder")
    packs = [write_pack(tmp_path / "folder", tmp_path / name) for name in ("a", "b")]
    assert packs[0].sha256 == packs[1].sha256
    write_class(tmp_path / "folder/red", (210, 40, 31), 1)
    assert write_pack(tmp_path / "folder", tmp_path / "c").sha256 != packs[0].sha256


def test_a_shard_is_an_ordinary_archive(tmp_path):
    classes(tmp_path / "folder")
    write_pack(tmp_path / "folder", tmp_path / "pack")
    with tarfile.open(tmp_path / "pack/shard-00000.tar") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    for file in (tmp_path / "folder").rglob("*.*"):
        assert (tmp_path / "out" / file.relative_to(tmp_path / "folder")).read_bytes() == file.read_bytes()


def test_links_and_names_that_are_not_utf8_are_packed_as_the_reader_finds_them(tmp_path):
    write_colors(tmp_path / "elsewhere", 10)
    (tmp_path / "folder").mkdir()
    for name in ("blue", "red"):
        (tmp_path / "folder" / name).symlink_to(tmp_path / "elsewhere" / name)
    odd = os.fsdecode(b"\xff.png")
    (tmp_path / "elsewhere/red/000.png").rename(tmp_path / "elsewhere/red" / odd)
    (tmp_path / "elsewhere/red/.hidden.png").write_bytes(b"")
    write_pack(tmp_path / "folder", tmp_path / "pack")
    ours, theirs = (task_of(tmp_path / name, vision_config, "ImageFolder") for name in ("pack", "folder"))
    assert ours.fingerprint() == theirs.fingerprint()


def damaged(pack: Path, how: str) -> str | None:
    """Damage a pack; what `packSha256` says of it."""
    manifest = json.loads((pack / "pack.json").read_text())
    match how:
        case "cut":
            os.truncate(pack / "shard-00000.tar", 1000)
        case "lost":
            (pack / "shard-00000.tar").unlink()
        case "index":
            data = bytearray((pack / "index.npz").read_bytes())
            data[-40] ^= 1
            (pack / "index.npz").write_bytes(data)
        case "version":
            (pack / "pack.json").write_text(json.dumps(manifest | {"format": 2}))
        case "no manifest":
            (pack / "pack.json").write_text("{}")
        case "other":
            return "0" * 64
        case "none":
            shutil.rmtree(pack)
            write_colors(pack, 4)
            return "0" * 64
    return None


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("cut", r"pack/shard-00000.tar has 1000 bytes, the pack says \d+: it is truncated, or not copied to the end"),
        ("lost", r"pack/shard-00000.tar cannot be read: No such file or directory; it is part of a pack"),
        ("index", r"pack/index.npz is damaged, or of another pack"),
        ("version", r"pack/pack.json: a pack of format 2, this trainer reads format 1: pack the data anew"),
        ("no manifest", r"pack/pack.json is no manifest of a pack: KeyError\('format'\)"),
        ("other", r"data.packSha256 is 0+, but .*pack/pack.json has [0-9a-f]{64}: it is a pack of other data"),
        ("none", r"data.packSha256 is given, but .*pack is no pack: it has no pack.json"),
    ],
)
def test_a_pack_that_is_not_the_one_is_refused_by_name(tmp_path, how, told):
    classes(tmp_path / "folder")
    write_pack(tmp_path / "folder", tmp_path / "pack")
    expected = damaged(tmp_path / "pack", how)
    data = {"claim": "x"} | ({"packSha256": expected} if expected else {})
    with pytest.raises(DataError, match=told):
        make_task(vision_config(tmp_path / "pack", tmp_path / "run", data=data))


def test_a_shard_that_is_cut_off_while_it_is_read_is_named(tmp_path):
    classes(tmp_path / "folder")
    write_pack(tmp_path / "folder", tmp_path / "pack")
    images = task_of(tmp_path / "pack", vision_config, "ImageFolder").splits()["train"]
    os.truncate(tmp_path / "pack/shard-00000.tar", 1000)
    with pytest.raises(DataError, match=r"pack/shard-00000.tar ends before .*: it was truncated while it was in use"):
        images[SampleRef(len(images) - 1, 0)]


@pytest.mark.parametrize(
    ("folder", "out", "size", "told"),
    [
        ("data", "there", None, "there exists already: a pack is never changed"),
        ("data", "data/pack", None, "data/pack lies in .*data: it would become part of itself"),
        ("data", "pack", 4, "--size 4: at least 16 pixels"),
        ("nowhere", "pack", None, "nowhere cannot be read as a folder: No such file or directory"),
        ("there", "pack", None, "there has no files"),
    ],
)
def test_what_cannot_be_packed_is_said(tmp_path, folder, out, size, told):
    classes(tmp_path / "data")
    (tmp_path / "there").mkdir()
    with pytest.raises((ConfigError, DataError), match=told):
        write_pack(tmp_path / folder, tmp_path / out, size=size)


def test_the_command_prints_what_the_spec_takes(tmp_path, capsys):
    classes(tmp_path / "folder")
    arguments = ["pack", str(tmp_path / "folder"), str(tmp_path / "pack"), "--size", "24"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "25 files in 1 shard(s)" in printed
    assert f"packSha256: {Pack(tmp_path / 'pack').sha256}\n" in printed
    assert main(arguments) == 78
    assert "darkroom: " in capsys.readouterr().err
