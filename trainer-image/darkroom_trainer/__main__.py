"""`darkroom-trainer train [CONFIG.json]`, and `predict MODEL IMAGE...`, `summary RUN`, `pack FOLDER OUT`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code. Heavy imports wait until a command needs them: a SIGTERM in the first second must find a handler."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["predict"]:
        from darkroom_trainer import predict

        return predict.main(arguments[1:])
    if arguments[:1] == ["summary"]:
        from darkroom_trainer.summary import page

        return page.main(arguments[1:])
    if arguments[:1] == ["pack"]:
        from darkroom_trainer import pack

        return pack.main(arguments[1:])
    if arguments[:1] == ["worker"]:  # started by the launcher, with the folder that they share
        from darkroom_trainer import worker

        return worker.main(Path(arguments[1]), task=arguments[2] if len(arguments) > 2 else None)
    parsed = _parser().parse_args(arguments)
    from darkroom_trainer import launch

    return launch.main(parsed.config, task=parsed.task)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="darkroom-trainer",
        description="Train a network, or ask one.",
        epilog="Exit codes: 0 done, 65 bad data, 70 software error, 75 asked to leave (a checkpoint was written), "
        "78 bad configuration, 79 synthetic images too far from the real ones, 137 killed.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser(
        "train",
        help="train on this machine, or as one node of several",
        description="Processes and nodes come from torchrun's variables (PET_NPROC_PER_NODE, PET_NNODES, "
        "PET_NODE_RANK, PET_RDZV_ENDPOINT, ...); without any, one process on this machine.",
    )
    train.add_argument(
        "config",
        nargs="?",
        type=Path,
        help="JSON with dataDir, runDir and vision, as docs/guides/trainer.md explains; absent: DARKROOM_CONFIG's content",
    )
    train.add_argument(
        "--task",
        metavar="MODULE:FUNCTION",
        help="a task of your own: a function that takes the TrainerConfig and returns a darkroom_trainer.tasks.base.Task",
    )
    commands.add_parser("summary", help="write a run's summary.html anew; see `summary --help`")
    commands.add_parser("pack", help="a data set's files in a few large ones; see `pack --help`")
    commands.add_parser("predict", help="classes of images by an exported model; see `predict --help`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
