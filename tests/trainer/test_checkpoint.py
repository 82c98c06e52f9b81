"""Checkpoints against kills, full disks, damage and other runs."""

import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import torch

from darkroom_trainer.checkpoint import MANIFEST, OWNER, STATE, WEIGHTS, Checkpoints
from darkroom_trainer.endings import export
from darkroom_trainer.errors import ConfigError, DataError, StorageError
from darkroom_trainer.state import check_identity, identity
from darkroom_trainer.train import Host, Run
from tests.trainer.processes import toy_config
from tests.trainer.toy_task import Toy
from tests.unprivileged import as_nobody

IDENTITY = {"fingerprint": "f", "microBatch": 4, "vision": {}}


def tensors(step: int, size: int = 1000) -> dict[str, torch.Tensor]:
    return {"model.weight": torch.full((size,), float(step)), "model.count": torch.tensor(step)}


def save(checkpoints: Checkpoints, step: int, *, best_step: int | None = None, size: int = 1000):
    return checkpoints.save(step, tensors(step, size), {"step": step}, identity=IDENTITY, best_step=best_step)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    opened = Checkpoints(tmp_path / "checkpoints", keep=2)
    opened.open()
    return opened


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "checkpoints").iterdir() if path.name != OWNER)


def test_what_is_saved_is_read_back(checkpoints, tmp_path):
    assert checkpoints.newest() is None
    saved = save(checkpoints, 7)
    parcel = checkpoints.newest()
    assert parcel.saved == saved
    assert torch.equal(parcel.tensors("model.")["weight"], torch.full((1000,), 7.0))
    assert parcel.counters() == {"step": 7}
    assert sorted(file.name for file in saved.folder.iterdir()) == [MANIFEST, STATE, WEIGHTS]
    manifest = json.loads((saved.folder / MANIFEST).read_text())
    assert manifest["files"][WEIGHTS]["bytes"] == (saved.folder / WEIGHTS).stat().st_size


def test_the_newest_ones_are_kept_and_the_best_they_speak_of(checkpoints, tmp_path):
    for step in (10, 20):
        checkpoints.save_best(step, tensors(step), identity=IDENTITY)
        save(checkpoints, step, best_step=step)
    checkpoints.save_best(30, tensors(30), identity=IDENTITY)
    # Killed now, the run would go on from step 20, whose best is 20.
    assert names(tmp_path) == ["best-00000010", "best-00000020", "best-00000030", "step-00000010", "step-00000020"]
    save(checkpoints, 30, best_step=30)
    save(checkpoints, 40, best_step=30)
    assert names(tmp_path) == ["best-00000030", "step-00000030", "step-00000040"]
    assert torch.equal(checkpoints.best(30).tensors("model.")["weight"][:1], torch.tensor([30.0]))
    with pytest.raises(StorageError, match="best-00000010"):
        checkpoints.best(10)


def test_a_step_may_be_saved_twice(checkpoints, tmp_path):
    save(checkpoints, 5)
    again = checkpoints.save(5, tensors(5), {"step": "again"}, identity=IDENTITY, best_step=None)
    assert again.folder.name == "step-00000005.01"
    assert checkpoints.newest().counters() == {"step": "again"}


@pytest.mark.parametrize("file", [WEIGHTS, STATE, MANIFEST])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_passed_over(checkpoints, caplog, file, damage):
    save(checkpoints, 1)
    path = save(checkpoints, 2).folder / file
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content) if damage == "flip" else bytes(content[: len(content) // 2]))
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest().saved.step == 1
    if not (file == MANIFEST and damage == "remove"):  # then it was never a checkpoint
        assert "step-00000002 is damaged and passed over" in caplog.text
    save(checkpoints, 2)
    assert checkpoints.newest().saved.step == 2


def test_a_damaged_checkpoint_does_not_count_as_kept(tmp_path):
    """The run went back behind it: the next save is the newest, and with keep 1 it is the only one."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    checkpoints.open()
    (save(checkpoints, 20).folder / STATE).write_bytes(b"")
    assert checkpoints.newest() is None
    save(checkpoints, 5)
    assert names(tmp_path) == ["step-00000005"]
    assert checkpoints.newest().saved.step == 5


def test_a_later_start_of_the_run_takes_the_folder_over(checkpoints, tmp_path):
    """A node that was lost and comes back must not save, nor prune what its successor saved."""
    save(checkpoints, 1)
    later = Checkpoints(tmp_path / "checkpoints", keep=2)
    later.open()
    with pytest.raises(StorageError, match=rf"taken over by a later start of the run \(process {os.getpid()} on "):
        save(checkpoints, 9)
    assert names(tmp_path) == ["step-00000001"]
    save(later, 2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_no_code_runs_when_a_checkpoint_is_read(checkpoints):
    """A pickle that would call something is refused by weights_only."""
    saved = checkpoints.save(1, tensors(1), {"evil": Evil()}, identity=IDENTITY, best_step=None)
    with pytest.raises(Exception, match="Weights only load failed"):
        checkpoints.newest().counters()
    assert not (saved.folder / "called").exists()


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("called",))


# --- Kills ---


def _save_forever(folder: Path, start: int) -> None:
    torch.set_num_threads(1)
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.open()
    step = start
    while True:
        step += 1
        checkpoints.save_best(step, tensors(step, 20_000), identity=IDENTITY)
        save(checkpoints, step, best_step=step, size=20_000)


def test_a_kill_at_any_instant_never_costs_the_last_good_checkpoint(tmp_path):
    """A process that saves without pause is killed at 15 random instants."""
    context, dice, last = multiprocessing.get_context("forkserver"), random.Random(4), 0
    context.set_forkserver_preload(["torch", "darkroom_trainer.checkpoint", "tests.trainer.test_checkpoint"])
    folder = tmp_path / "checkpoints"
    for _ in range(15):
        process = context.Process(target=_save_forever, args=(folder, last))
        process.start()
        deadline = time.monotonic() + 60
        while not list(folder.glob(f"step-*{last + 1}")) and time.monotonic() < deadline:
            time.sleep(0.005)  # the first save of this process is done: from here on kill at random
        time.sleep(dice.uniform(0, 0.08))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        parcel = Checkpoints(folder, keep=2).newest()
        assert parcel.saved.step > last
        last = parcel.saved.step
        assert torch.equal(parcel.tensors("model.")["weight"], torch.full((20_000,), float(last)))
        assert parcel.counters() == {"step": last}
        assert Checkpoints(folder, keep=2).best(parcel.manifest.best_step).saved.step == last
    Checkpoints(folder, keep=2).open()
    assert not [name for name in names(tmp_path) if name.startswith(".")], "leftovers of killed saves are swept"


# --- Storage that fails ---


def test_a_full_disk_names_the_folder_and_costs_nothing(checkpoints, tmp_path):
    """A limit on file size stands in for the full disk: the kernel refuses the write half-way, as with ENOSPC."""
    save(checkpoints, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(
            StorageError, match=r"step-00000002 could not be written to .*checkpoints: .*[Ff]ile too large"
        ):
            save(checkpoints, 2, size=100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == ["step-00000001"]
    assert checkpoints.newest().saved.step == 1


@pytest.fixture
def small_volume(tmp_path):
    """A file system of 3 MiB; only root may mount one."""
    folder = tmp_path / "volume"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(("weights", "state"), [(900_000, 0), (1000, 900_000)], ids=["at the weights", "at the state"])
def test_a_volume_without_space_is_said_in_plain_words(small_volume, weights, state):
    """Safetensors and torch answer ENOSPC with errors of their own."""
    checkpoints = Checkpoints(small_volume / "checkpoints", keep=2)
    checkpoints.open()
    save(checkpoints, 1)
    with pytest.raises(StorageError, match="no space left on its volume; the checkpoints before it are untouched"):
        checkpoints.save(2, tensors(2, weights), {"m": torch.zeros(state)}, identity=IDENTITY, best_step=None)
    assert names(small_volume) == ["step-00000001"]
    assert checkpoints.newest().saved.step == 1


def test_a_model_that_finds_no_space_names_its_folder(small_volume):
    """The run itself is complete, and its checkpoints are elsewhere."""
    config = toy_config(small_volume, faults={"samples": 48}, schedule={"epochs": 1, "warmupEpochs": "0"})
    run = Run(config, Toy(config), Host())
    (small_volume / "ballast").write_bytes(bytes(shutil.disk_usage(small_volume).free))
    with pytest.raises(StorageError, match=r"model could not be written to .*run/model: no space left"):
        export(run, run.learner.judged, {}, epoch=1)


def test_a_read_only_volume_is_found_out_before_training(small_volume):
    save_one = Checkpoints(small_volume / "checkpoints", keep=1)
    save_one.open()
    save(save_one, 1)
    subprocess.run(["mount", "-o", "remount,ro", small_volume], check=True)
    with pytest.raises(
        ConfigError, match=r"runDir: .*/checkpoints cannot be written: Read-only file system; the claim"
    ):
        Checkpoints(small_volume / "checkpoints", keep=1).open()
    assert save_one.newest().saved.step == 1


def test_a_folder_that_cannot_be_written_is_found_out_before_training(tmp_path):
    blocked = tmp_path / "run"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match=r"runDir: .*run/checkpoints cannot be written: Not a directory"):
        Checkpoints(blocked / "checkpoints", keep=1).open()


def test_a_read_only_folder_is_found_out_before_training():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to everybody else
        Path(folder).chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
        with as_nobody(), pytest.raises(ConfigError, match="Permission denied"):
            Checkpoints(Path(folder) / "checkpoints", keep=1).open()


# --- Another run's folder ---


def test_identity_names_what_differs(tmp_path):
    one = identity(toy_config(tmp_path).vision, fingerprint="a", micro_batch=24)
    same = toy_config(tmp_path, workers=3, precision="BFloat16", microBatchSize=4, data={"claim": "elsewhere"}).vision
    check_identity(one, identity(same, fingerprint="a", micro_batch=24), run_dir="/runs/x")

    other = toy_config(tmp_path, batchSize=64, model={"architecture": "resnet34", "stem": "SmallImage"}).vision
    with pytest.raises(ConfigError) as error:
        check_identity(one, identity(other, fingerprint="a", micro_batch=24), run_dir="/runs/x")
    assert "vision.batchSize was 48, is 64" in str(error.value)
    assert "vision.model.architecture was 'resnet18', is 'resnet34'" in str(error.value)
    assert "/runs/x" in str(error.value)

    with pytest.raises(DataError, match="classes or files of a split have changed"):
        check_identity(one, one | {"fingerprint": "b"}, run_dir="/runs/x")
