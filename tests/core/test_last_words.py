"""The end of a log that nobody wrote for us: what of it a person wants to read."""

import pytest

from darkroom_operator.core.training_job.last_words import LastWords, last_words


def summary(exit_code: str, traceback: str) -> str:
    return f"""    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
======================================================
/tmp/train.py FAILED
------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-25_01:35:04
  host      : flowers-1-0
  rank      : 3 (local_rank: 1)
  exitcode  : 1 (pid: 10)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-25_01:33:18
  host      : flowers-1-0
  rank      : 2 (local_rank: 0)
  exitcode  : {exit_code}
  error_file: <N/A>
  traceback : {traceback}
======================================================
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", LastWords(), id="silence"),
        pytest.param("Traceback (most recent call last):\nKeyError: 'x'\n", LastWords("KeyError: 'x'"), id="Python"),
        pytest.param("boom\n=====\n-----\n\n", LastWords("boom"), id="a frame around the words"),
        pytest.param(
            summary("-6 (pid: 9)  (SIGABRT)", "Signal 6 (SIGABRT) received by PID 9"),
            LastWords("Signal 6 (SIGABRT) received by PID 9", 2),
            id="torchrun: a signal",
        ),
        pytest.param(
            summary("3 (pid: 9)", "To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html"),
            LastWords("a process ended with exit code 3; its log has the cause", 2),
            id="torchrun: no traceback",
        ),
        pytest.param(
            "Root Cause (first observed failure):\n",
            LastWords("a process ended with exit code ?; its log has the cause"),
            id="torchrun: cut off",
        ),
    ],
)
def test_last_words(text, expected):
    assert last_words(text) == expected
