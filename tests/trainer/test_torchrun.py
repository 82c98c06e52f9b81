"""What the operator reads of torchrun's output is torch's own: a version that changes it is noticed here."""

import subprocess
import sys

from darkroom_operator.core.training_job.last_words import LastWords, last_words


def test_the_summary_of_a_failed_run(tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit(3)")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", str(tmp_path / "train.py")]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert last_words(told[-2048:]) == LastWords("a process ended with exit code 3; its log has the cause", 0)
