"""`python -m darkroom_trainer train [CONFIG.json] | predict MODEL IMAGE...`"""

import os
import sys
from pathlib import Path

from pydantic import ValidationError

from darkroom_api import names
from darkroom_api.report import ExitCode, Reason, TerminationMessage
from darkroom_api.v1alpha1.vision import TrainerConfig

USAGE = f"""usage:
  python -m darkroom_trainer train [CONFIG.json]       train; without a file the config is read from ${names.ENV_CONFIG}
  python -m darkroom_trainer predict MODEL IMAGE...    classify images with an exported model; --help says more

Exit codes of train: 0 done, 65 bad data, 70 software error, 75 asked to leave after a checkpoint, 78 bad configuration.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    match given:
        case ["train", *rest] if len(rest) <= 1:
            return _train(rest[0] if rest else None)
        case ["worker", config]:
            from darkroom_trainer.worker import main as work

            return work(Path(config))
        case ["predict", *rest]:
            from darkroom_trainer.predict import main as predict

            return predict(rest)
    print(USAGE, file=sys.stderr)
    return 0 if given in (["--help"], ["-h"]) else int(ExitCode.CONFIG_ERROR)


def _train(file: str | None) -> int:
    from darkroom_trainer.launch import run_node, write_termination_message

    try:
        text = _config_text(file)
        TrainerConfig.model_validate_json(text)
    except (OSError, ValueError) as error:
        problem = _readable(error, file or f"${names.ENV_CONFIG}")
        print(problem, file=sys.stderr)
        code = int(ExitCode.CONFIG_ERROR)
        write_termination_message(TerminationMessage(reason=Reason.CONFIG_ERROR, exit_code=code, error=problem[:1000]))
        return code
    return run_node(text)


def _config_text(file: str | None) -> str:
    if file is not None:
        return Path(file).read_text()
    try:
        return os.environ[names.ENV_CONFIG]
    except KeyError:
        raise ValueError("no config: name a file, or set the variable") from None


def _readable(error: Exception, source: str) -> str:
    """One line per field that is wrong."""
    if not isinstance(error, ValidationError):
        return f"{source}: {error}"
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"]) or "config"
        lines.append(f"{source}: {field}: {problem['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
