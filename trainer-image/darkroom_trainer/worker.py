"""One training process: join, train, and say how it ended."""

import os
import sys
import traceback
from pathlib import Path

from darkroom_api.report import ExitCode, Reason
from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.clock import Clock
from darkroom_trainer.errors import TrainerError
from darkroom_trainer.report import Facts

_PEER_WORDS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "recvValueWithTimeout failed",
    "Timed out waiting",
    "timed out",
    "remote process exited",
    "Socket closed",
    "NCCL communicator was aborted",
)


def main(config_file: Path) -> int:
    """Run a worker; returns its exit code."""
    clock = Clock.of_worker()
    from darkroom_trainer.control import AskedToLeave, Leaving

    Leaving.listen()
    facts = Facts(int(os.environ.get("RANK", "0")))
    facts.update(time=clock.seconds())
    try:
        _train(TrainerConfig.model_validate_json(config_file.read_text()), clock, facts)
        code = int(ExitCode.DONE)
    except AskedToLeave as left:
        facts.update(reason=Reason.ASKED_TO_LEAVE, exit_code=int(ExitCode.ASKED_TO_LEAVE), error=None)
        print(left, flush=True)
        code = int(ExitCode.ASKED_TO_LEAVE)
    except TrainerError as error:
        code = _failed(facts, error, error.reason, error.exit_code)
    except Exception as error:
        lost_peer = any(word in str(error) for word in _PEER_WORDS)
        traceback.print_exc()
        code = _failed(facts, error, Reason.PEER_LOST if lost_peer else Reason.SOFTWARE_ERROR, ExitCode.SOFTWARE_ERROR)
    facts.update(time=clock.seconds())
    return code


def _train(config: TrainerConfig, clock: Clock, facts: Facts) -> None:
    from darkroom_trainer.parallel import joined_world
    from darkroom_trainer.tasks import make_task
    from darkroom_trainer.train import train

    with clock.spend("rendezvous"):
        joining = joined_world()
        world = joining.__enter__()
    try:
        train(config, make_task(config), world, clock, facts)
    finally:
        joining.__exit__(*sys.exc_info())


def _failed(facts: Facts, error: Exception, reason: Reason, code: ExitCode) -> int:
    text = f"{type(error).__name__}: {error}".splitlines()[0][:1000]
    facts.update(reason=reason, exit_code=int(code), error=text)
    print(f"rank {facts.message.rank}: {text}", file=sys.stderr, flush=True)
    return int(code)
