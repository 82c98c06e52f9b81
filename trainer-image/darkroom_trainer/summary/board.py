"""TensorBoard's event files: the run's curves for who already looks at others there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom_trainer.errors import ConfigError

FOLDER = "tensorboard"


class Board:
    """Writes `tensorboard/` of the run's folder; a start at `step` hides what was written beyond it before a crash.

    Raises ConfigError if the package tensorboardX is not installed.
    """

    def __init__(self, run_dir: Path, *, step: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "vision.summary.tensorBoard needs the package tensorboardX, which this image has not"
            ) from error
        self._writer = SummaryWriter(str(run_dir / FOLDER), purge_step=step + 1 if step else None, flush_secs=10)

    def progress(self, step: int, facts: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """One interval of training; what is not known yet is left out."""
        scalars = {
            "learningRate": facts.get("learningRate"),
            "imagesPerSecond": facts.get("imagesPerSecond"),
            **metrics,
        }
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def evaluation(self, step: int, named: Mapping[str, float]) -> None:
        for name, value in named.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
