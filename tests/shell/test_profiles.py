"""The profiles file while it changes under the operator's eyes."""

import logging
import os
from pathlib import Path

import pytest

from darkroom_operator.shell.metrics import Metrics
from darkroom_operator.shell.profiles import Profiles

GOOD = "default: {image: 'localhost/trainer:1'}\n"
MORE = GOOD + "gpu: {image: 'localhost/trainer:2'}\n"


class Volume:
    """A ConfigMap volume: the file is a link through `..data`, which kubelet swaps."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.number = folder, folder / "profiles.yaml", 0
        self.file.symlink_to("..data/profiles.yaml")

    def write(self, text: str) -> None:
        self.number += 1
        new = self.folder / f"..{self.number}"
        new.mkdir()
        (new / "profiles.yaml").write_text(text)
        (self.folder / "..data_tmp").symlink_to(new.name)
        os.replace(self.folder / "..data_tmp", self.folder / "..data")  # noqa: PTH105 - as kubelet does


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def profiles(volume, metrics):
    changes: list[int] = []
    profiles = Profiles(volume.file, lambda: changes.append(1), metrics)
    profiles.changes = changes  # type: ignore[attr-defined]
    return profiles


def gauges(metrics: Metrics) -> tuple[float | None, float | None]:
    read = metrics.registry.get_sample_value
    return read("darkroom_profiles_loaded"), read("darkroom_profiles_last_reload_successful")


def test_every_change_is_noticed_once(profiles, volume, metrics):
    volume.write(GOOD)
    profiles.load()
    profiles.load()
    volume.write(MORE)
    profiles.load()
    assert sorted(profiles.current) == ["default", "gpu"]
    assert len(profiles.changes) == 2
    assert gauges(metrics) == (2, 1)


@pytest.mark.parametrize("broken", ["default: [", "default: {image: 7, colour: red}", "- a list"])
def test_a_broken_file_leaves_the_last_good_one_in_force(profiles, volume, metrics, caplog, broken):
    volume.write(MORE)
    profiles.load()
    volume.write(broken)
    with caplog.at_level(logging.ERROR):
        profiles.load()
        profiles.load()
    assert sorted(profiles.current) == ["default", "gpu"]
    assert gauges(metrics) == (2, 0)
    assert len(caplog.records) == 1, "told once, not every two seconds"
    volume.write(MORE)
    profiles.load()
    assert gauges(metrics) == (2, 1)


def test_a_file_that_is_away_and_comes_back_as_it_was(profiles, volume, metrics, caplog):
    volume.write(GOOD)
    profiles.load()
    (volume.folder / "..data").rename(volume.folder / "away")
    with caplog.at_level(logging.ERROR):
        profiles.load()
        profiles.load()
    assert gauges(metrics) == (1, 0)
    assert len(caplog.records) == 1
    (volume.folder / "away").rename(volume.folder / "..data")
    profiles.load()
    assert gauges(metrics) == (1, 1)
