"""Live reports: what one changes in the status, whether that is worth a write now, and what its sender is told.

Nothing here is needed to get a job done. Whoever loses a report loses liveness, and nothing else.
"""

from datetime import datetime, timedelta

from darkroom_api import names
from darkroom_api.report import Action, LiveReport, Reason, Reply, Standing, TerminationMessage
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.training_job_status import Attempt, Condition, Progress, TrainingJobStatus
from darkroom_operator.core.conditions import parse_time, timestamp
from darkroom_operator.core.training_job.curve import with_point
from darkroom_operator.core.training_job.failures import FINISHING, LEAVING
from darkroom_operator.core.training_job.observe import Observed, stored_status
from darkroom_operator.core.types import Body, Live

PATCH_SECONDS = 10.0
"""Between two writes of a status whose only news is progress."""
HEARTBEAT_SECONDS = 60.0
"""Between two writes of a status whose only news is that the trainer is still there."""
ALIVE_SECONDS = 30.0
"""A trainer that was heard this long ago will ask again soon, and so can be told to leave."""
GRACE_SECONDS = 60.0
"""Time to leave after a yield, where the job's profile is gone."""
FINISH_SECONDS = 900.0
"""Time to measure and export, once a budget is spent: as long as it takes, for a trainer that goes on reporting."""


def is_newer(known: Live | None, new: Live) -> bool:
    """Whether a report adds something to what is known; the attempt counts before the sequence."""
    if known is None or known.uid != new.uid:
        return True
    return (known.attempt, known.report.sequence) < (new.attempt, new.report.sequence)


def take_in(seen: Observed, status: TrainingJobStatus, attempt: Attempt) -> None:
    """Bring progress and best value up to date from the newest report of a running attempt, if that is due."""
    live = _of(seen, attempt)
    if live is None or not _due(status, live):
        return
    status.progress = _progress(live, status.progress)
    status.best = live.report.best or status.best
    status.fidelity = live.report.fidelity or status.fidelity
    status.step_times = live.report.step_times or status.step_times
    status.curve = with_point(status.curve, live.report, seen.objective, status.time)


def _of(seen: Observed, attempt: Attempt) -> Live | None:
    return seen.live if seen.live and seen.live.attempt == attempt.number else None


def _due(status: TrainingJobStatus, live: Live) -> bool:
    """At once for what people wait for: a first sign of life, an epoch's end, a better model, a straggler. Others wait."""
    stored, report = status.progress, live.report
    told = parse_time(stored.report_time) if stored else None
    if stored is None or told is None:
        return True
    if live.received < told:  # another replica has stored a newer one
        return False
    if bool(report.straggler) != bool(stored.straggler):
        return True
    if report.epoch != stored.epoch or (report.best and report.best != status.best):
        return True
    age = (live.received - told).total_seconds()
    return age >= (PATCH_SECONDS if report.step != stored.step else HEARTBEAT_SECONDS)


def _progress(live: Live, stored: Progress | None) -> Progress:
    report = live.report
    known = stored.step_time if stored and not _steps_on(live, stored) else None
    return progress_of(report).model_copy(
        update={
            "eta_seconds": report.eta_seconds,
            "eta_low_seconds": report.eta_low_seconds,
            "eta_high_seconds": report.eta_high_seconds,
            "eta": _eta(report),
            "straggler": report.straggler,
            "step_time": known or timestamp(live.received),
            "report_time": timestamp(live.received),
        }
    )


def _steps_on(live: Live, stored: Progress) -> bool:
    return (live.report.epoch, live.report.step) != (stored.epoch, stored.step)


def seconds_to_stall(
    seen: Observed, spec: TrainingJobSpec, status: TrainingJobStatus, attempt: Attempt
) -> float | None:
    """Until a container that reports has taken stallSeconds for one step; None where that cannot be known.

    The built-in trainer sees more (evaluations, each of its ranks), and watches itself.
    """
    live, stored = _of(seen, attempt), status.progress
    if spec.stall_seconds is None or spec.container is None or stored is None or seen.listening_since is None:
        return None
    stepped = live.received if live and _steps_on(live, stored) else parse_time(stored.step_time)
    if stepped is None:
        return None
    return spec.stall_seconds - (seen.now - max(stepped, seen.listening_since)).total_seconds()


def progress_of(said: Standing) -> Progress:
    """What a live report and a last message say alike; without what holds for a running attempt only."""
    return Progress(
        epoch=said.epoch,
        epochs=said.epochs,
        step=said.step,
        percent=min(100, said.step * 100 // said.steps) if said.steps else 0,
        images_per_second=said.images_per_second,
        metrics=said.metrics or None,
        checkpoint_step=said.checkpoint_step,
    )


def _eta(report: LiveReport) -> str | None:
    if report.eta_seconds is None:
        return None
    low, high = report.eta_low_seconds, report.eta_high_seconds
    spread = f" ({duration(low)}-{duration(high)})" if low is not None and high is not None else ""
    return duration(report.eta_seconds) + spread


def duration(seconds: int) -> str:
    """`41s`, `12m`, `3h05m`, `2d04h`; no more digits than anybody can foresee."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 100:
        return f"{seconds}s"
    if minutes < 100:
        return f"{minutes}m"
    if hours < 48:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    return f"{hours // 24}d{hours % 24:02d}h" if hours < 2400 else f"{min(hours // 24, 10**6)}d"


# --- The end of an attempt ---


def last_words(seen: Observed, attempt: Attempt) -> TerminationMessage | None:
    """What stands in for the termination message of a pod that was lost with its node."""
    live = _of(seen, attempt)
    if live is None:
        return None
    common = {name: getattr(live.report, name) for name in Standing.model_fields}
    return TerminationMessage(reason=Reason.KILLED, exit_code=137, **common)


def at_rest(progress: Progress) -> Progress:
    """Without what holds for a running attempt only."""
    now_gone = ("eta_seconds", "eta_low_seconds", "eta_high_seconds", "eta", "step_time", "report_time")
    return progress.model_copy(update=dict.fromkeys(now_gone))


# --- Asking an attempt to leave ---


def seconds_to_yield(seen: Observed, attempt: Attempt) -> float | None:
    """Ask the attempt to save and leave, on record; seconds until it is to be made to. None: it is time for that.

    What is stored decides, so an operator that is killed meanwhile goes on where it was.
    """
    job = seen.jobs.get(attempt.number)
    if job is None or job.deleting:
        return None
    if seen.spec and seen.spec.elastic and attempt.reason not in FINISHING:
        return None  # pods that leave would be made again while their Job is there; SIGTERM asks for the same
    asked = parse_time(attempt.yield_time)
    if asked is None:
        if not _is_alive(seen, attempt):
            return None
        asked, attempt.yield_time = seen.now, timestamp(seen.now)
    grace = seen.profile.termination_grace_period_seconds if seen.profile else GRACE_SECONDS
    if attempt.reason in FINISHING and _is_alive(seen, attempt):
        grace = max(grace, FINISH_SECONDS)
    left = (asked + timedelta(seconds=grace) - seen.now).total_seconds()
    return left if left > 0 else None


def _is_alive(seen: Observed, attempt: Attempt) -> bool:
    heard: list[datetime] = []
    if live := _of(seen, attempt):
        heard.append(live.received)
    if seen.status.progress and (stored := parse_time(seen.status.progress.report_time)):
        heard.append(stored)
    return bool(heard) and (seen.now - max(heard)).total_seconds() <= ALIVE_SECONDS


_WAYS = dict.fromkeys(FINISHING, Action.STOP) | dict.fromkeys(LEAVING, Action.PRUNE)
"""How an attempt is to leave, by the reason of the verdict on it; otherwise it is to yield."""


def reply(body: Body, attempt: int, *, accepted: bool, seconds_left: float | None = None) -> Reply:
    """What the sender of a report is told: the action follows from the job's stored status alone."""
    status = stored_status(body)
    newest = status.attempts[-1] if status.attempts else None
    if status.finished:
        return Reply(action=Action.YIELD, accepted=False, reason="the job has ended")
    if newest and newest.number > attempt:
        return Reply(action=Action.YIELD, accepted=False, reason=f"attempt {newest.number} has taken its place")
    if newest and newest.number == attempt and newest.yield_time:
        action = _WAYS.get(newest.reason or "", Action.YIELD)
        return Reply(action=action, accepted=accepted, reason=_why(status.conditions or []))
    return Reply(accepted=accepted, reason=None if accepted else "a newer report is known", seconds_left=seconds_left)


def _why(conditions: list[Condition]) -> str | None:
    return next((condition.message for condition in conditions if condition.type == names.READY), None)
