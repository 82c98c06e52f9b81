"""What a trainer says: its exit code, the termination message that kubelet keeps in the pod's status, and live reports.

The protocol is open to any container. A trainer that writes no message is judged by its exit code alone, and live reports
carry nothing that the operator needs to get a job done (docs/guides/reporting.md).
Exit codes follow sysexits.h where it has one (65 EX_DATAERR, 70 EX_SOFTWARE, 75 EX_TEMPFAIL, 78 EX_CONFIG).
"""

import json
from enum import IntEnum, StrEnum
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, ValidationError

from darkroom_api.step_times import StepTimes
from darkroom_api.v1alpha1.common import Model
from darkroom_api.v1alpha1.straggler import Straggler


class ExitCode(IntEnum):
    """How a training process ends. Anything else counts as SOFTWARE_ERROR."""

    DONE = 0
    DATA_ERROR = 65  # a split without samples, too many corrupt images: never restarted
    SOFTWARE_ERROR = 70  # restarted, spends one of maxRestarts
    ASKED_TO_LEAVE = 75  # SIGTERM or a command; a checkpoint was written: restarted for free
    CONFIG_ERROR = 78  # wrong digest, unknown key: never restarted
    FIDELITY_TOO_LOW = 79  # synthetic images too far from the real ones: never restarted
    KILLED = 137  # SIGKILL, mostly the kernel's OOM killer


class Reason(StrEnum):
    """Why the process ended; the operator shows it as the reason of a condition."""

    COMPLETED = "Completed"
    TARGET_REACHED = "TargetReached"
    BUDGET_SPENT = "BudgetSpent"
    PLATEAU = "Plateau"
    PRUNED = "Pruned"
    ASKED_TO_LEAVE = "AskedToLeave"
    DATA_ERROR = "DataError"
    CONFIG_ERROR = "ConfigError"
    FIDELITY_TOO_LOW = "FidelityTooLow"
    SOFTWARE_ERROR = "SoftwareError"
    PEER_LOST = "PeerLost"
    NO_PROGRESS = "NoProgress"
    OUT_OF_MEMORY = "OutOfMemory"
    KILLED = "Killed"


TIME_BUCKETS = (
    "startup",  # process start to rendezvous: imports, reading the data folder, building the model
    "rendezvous",  # waiting for the other nodes
    "compile",  # torch.compile
    "dataWait",  # the step waited for the loader
    "compute",  # forward, backward, optimizer
    "communication",  # gradient all-reduce that compute did not hide
    "evaluation",
    "checkpoint",  # saving
    "restore",  # loading a checkpoint
    "other",
)
"""Buckets of a trainer's wall clock, in seconds; they sum to the process's life."""

MAX_MESSAGE_BYTES = 3500  # kubelet cuts at 4096 bytes, which would break the JSON
MAX_REPORT_BYTES = 32 * 1024  # a live report has about 1 kB; the operator reads no more than this
_MAX_TEXT = 1024


def _head(text: object) -> object:
    return _readable(text)[:_MAX_TEXT] if isinstance(text, str) else text


def _tail(text: object) -> object:
    return _readable(text)[-_MAX_TEXT:] if isinstance(text, str) else text


def _readable(text: str) -> str:
    """Without the lone surrogates that Python makes of file names that are not UTF-8."""
    return text.encode(errors="replace").decode()


Head = Annotated[str, BeforeValidator(_head), Field(max_length=_MAX_TEXT)]
"""Free text, cut at its end and never refused: the last words of a process must get through."""
Tail = Annotated[str, BeforeValidator(_tail), Field(max_length=_MAX_TEXT)]
"""Free text, cut at its beginning."""
Count = Annotated[int, Field(ge=0, le=2**53)]
"""Bounded, for any container may write a message, and what it counts ends in a status that the API server checks."""


class Metric(Model):
    """One measured value."""

    name: Annotated[str, Field(max_length=63, description="Metric, as `val/top1`.")]
    value: Annotated[str, Field(max_length=24, description="Value as a decimal string.")]


class Best(Model):
    """The best value so far of the metric that checkpoints and the exported model are chosen by."""

    metric: Annotated[str, Field(max_length=63, description="Metric, as `val/top1`.")]
    value: Annotated[str, Field(max_length=24, description="Value as a decimal string.")]
    epoch: Annotated[int, Field(ge=0, le=2**53, description="Epoch that gave it, counted from 1.")]


class Artifact(Model):
    """A file that the run left behind."""

    path: Annotated[str, Field(max_length=512, description="Path relative to the run's folder.")]
    sha256: Annotated[str | None, Field(max_length=64)] = None


Figure = Annotated[str | None, Field(max_length=24)]


class Fidelity(Model):
    """How close synthetic images are to the real ones, and what they are worth, on features of the network as it began."""

    kid: Annotated[Figure, Field(description="Kernel Inception Distance; 0: the same distribution.")] = None
    auc: Annotated[
        Figure, Field(description="Area under the ROC curve of a probe that tells synthetic from real; 0.5: it cannot.")
    ] = None
    tstr: Annotated[
        Figure, Field(description="Accuracy on real validation images of a probe that learned from synthetic ones.")
    ] = None
    trtr: Annotated[Figure, Field(description="The same of a probe that learned from real ones.")] = None
    gain: Annotated[
        Figure,
        Field(description="What a probe gains that learns from real and synthetic images, over real ones alone."),
    ] = None


class Standing(Model):
    """How far a training is: what the live report and the termination message have in common."""

    version: Annotated[int, Field(ge=1, le=1000)] = 1
    epoch: Count = 0
    """Epochs finished."""
    epochs: Count = 0
    step: Count = 0
    """Optimizer steps done, over all attempts."""
    steps: Count = 0
    """Optimizer steps of the whole schedule."""
    images_per_second: Annotated[str | None, Field(max_length=24)] = None
    metrics: Annotated[list[Metric], Field(max_length=16)] = []
    best: Best | None = None
    checkpoint_step: Count | None = None
    """Step of the newest checkpoint on disk."""
    resumed_step: Count | None = None
    """Step of the checkpoint that this attempt began from; None: it began at the beginning."""
    time: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^[A-Za-z]{1,32}$")],
            Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)],
        ],
        Field(max_length=16),
    ] = {}
    """Seconds in each of TIME_BUCKETS, of this attempt."""
    straggler: Straggler | None = None
    """The process that holds up the others, while one does."""
    fidelity: Fidelity | None = None
    """None: not measured, for there is no `synthetic.gate`."""
    saved_seconds: Annotated[float | None, Field(ge=0, le=1e9, allow_inf_nan=False)] = None
    """Seconds of this attempt that cached features made unnecessary; None: it caches none."""
    step_times: StepTimes | None = None
    """What a step takes. None before that is known, and where steps differ: several phases, cached features."""


class TerminationMessage(Standing):
    """Written by each node's launcher when it ends; JSON of at most MAX_MESSAGE_BYTES."""

    reason: Reason
    exit_code: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
    rank: Count | None = None
    """Global rank of the process that ended first, where one failed."""
    checkpoint: Artifact | None = None
    model: Artifact | None = None
    error: Head | None = None
    """Class and first line of the error."""
    log_tail: Tail | None = None

    def encode(self) -> str:
        """JSON of at most MAX_MESSAGE_BYTES; what matters least goes first, and no message is too large to send."""
        message = self
        cuts: tuple[dict[str, object], ...] = (
            {},
            {"step_times": None},
            {"log_tail": None},
            {"metrics": []},
            {"error": self.error and self.error[:200]},
            {"error": self.error and self.error[:80]},
            {"checkpoint": None, "model": None, "best": None, "fidelity": None},
        )
        for cut in cuts:
            message = message.model_copy(update=cut)
            text = json.dumps(message.to_wire(), separators=(",", ":"), ensure_ascii=True)
            if len(text) <= MAX_MESSAGE_BYTES:
                return text
        raise AssertionError(f"bounds of the fields allow {len(text)} bytes")

    @classmethod
    def decode(cls, text: str | None) -> Self | None:
        """The message in a pod's status, or None where the container wrote something else (its log's tail, say).

        Fields of a newer trainer are passed over.
        """
        try:
            return cls.model_validate_json(text or "", strict=False, extra="ignore")
        except ValidationError:
            return None


class LiveReport(Standing):
    """Posted by rank 0 while it trains, to the URL in its environment; JSON of at most MAX_REPORT_BYTES."""

    sequence: Count
    """Grows with each report of an attempt; one that is not newer than the last is ignored."""
    eta_seconds: Count | None = None
    """Seconds to the end of the schedule at the present speed."""
    eta_low_seconds: Count | None = None
    """The same at the speed of its best moments ..."""
    eta_high_seconds: Count | None = None
    """... and of its worst."""

    @classmethod
    def decode(cls, text: str | bytes) -> Self:
        """ValueError names each field that is wrong; fields of a newer trainer are passed over."""
        try:
            return cls.model_validate_json(text, strict=False, extra="ignore")
        except ValidationError as error:
            places = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()]
            raise ValueError("; ".join(f"{place}: {said}" if place else said for place, said in places)) from error


class Action(StrEnum):
    """What the operator wants of a training, said in its answer to a live report."""

    CONTINUE = "continue"
    YIELD = "yield"  # save and leave with ASKED_TO_LEAVE: the pods are needed elsewhere, or the job is suspended
    PRUNE = "prune"  # save and leave with DONE and reason Pruned: it is not worth going on
    STOP = "stop"  # end the schedule here, and finish as after the last epoch: test, export, DONE with BudgetSpent


class Reply(Model):
    """The operator's answer to a live report."""

    version: Annotated[int, Field(ge=1, le=1000)] = 1
    action: Action = Action.CONTINUE
    accepted: bool = True
    """False: the report was older than one that is known, and was ignored; the action counts all the same."""
    reason: Head | None = None
    """Why, in a sentence."""
    seconds_left: Annotated[float | None, Field(ge=0, le=1e12, allow_inf_nan=False)] = None
    """Until the job's budget is spent, as things are; a trainer may fit its schedule to it. None: there is no limit."""

    @classmethod
    def decode(cls, text: str | bytes) -> Self:
        """ValueError for anything else; an action of a newer operator counts as such."""
        return cls.model_validate_json(text, strict=False, extra="ignore")
