"""Micro-batches that fit: halved by all processes together, in a process that really runs out of memory."""

import json
import os
import subprocess
import sys

import pytest
import torch

from darkroom_trainer.errors import ConfigError
from darkroom_trainer.fit import fitting, micro_batch_of
from darkroom_trainer.parallel import Group, join
from tests.trainer.images import write_colors
from tests.trainer.processes import ROOT, together, toy_config


def test_it_is_halved_until_it_fits():
    tried = []
    assert fitting(24, lambda size: tried.append(size) or size <= 5, Group()) == 3
    assert tried == [24, 12, 6, 3]


def test_an_image_that_does_not_fit_is_said():
    with pytest.raises(ConfigError, match=r"not even one image at a time fits into the memory: lower vision.imageSize"):
        fitting(4, lambda _: False, Group())


def smallest_member() -> int:
    """Rank 1 has room for 3 images, rank 0 for 10."""
    group = join()
    found = fitting(16, lambda size: size <= (10, 3)[group.rank], group)
    group.leave()
    return found


def test_the_process_with_the_least_room_decides_for_all():
    assert together(2, smallest_member) == [2, 2]


LIMITED = """
import json, resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from darkroom_trainer.fit import Trial, fitting
from darkroom_trainer.parallel import Group
from darkroom_trainer.tasks import make_task
from tests.trainer.images import vision_config
data = Path(sys.argv[1])
config = vision_config(data, data, model={"architecture": "squeezenet1_1"}, imageSize=224)
task = make_task(config)
trial = Trial(config.vision, task, task.splits()["train"], torch.device("cpu"))
assert trial.fits(1)
pages = int(Path("/proc/self/statm").read_text().split()[0])
room = pages * resource.getpagesize() + 600_000_000
resource.setrlimit(resource.RLIMIT_AS, (room, room))
sizes = []
def fits(size):
    sizes.append(size)
    return trial.fits(size)
print(json.dumps([fitting(512, fits, Group()), sizes]))
"""


def test_a_process_out_of_memory_finds_what_fits(tmp_path):
    """The limit is the kernel's, and the error the allocator's own."""
    write_colors(tmp_path, 10)
    environ = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}:{ROOT / 'trainer-image'}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found, tried = json.loads(done.stdout.splitlines()[-1])
    assert tried[0] == 512
    assert 1 <= found < 512
    assert found == tried[-1]


@pytest.mark.parametrize("strategy", ["FSDP", "Pipeline"])
def test_a_network_that_is_divided_is_not_tried_whole(tmp_path, strategy):
    config = toy_config(tmp_path, batchSize=48, parallelism={"strategy": strategy})
    group = Group(world=2, device=torch.device("cuda"))
    assert micro_batch_of(config.vision, None, None, group, say=print) == 24
