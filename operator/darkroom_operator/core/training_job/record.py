"""The record of attempts: what the stored status knows, brought up to date with what the cluster shows."""

from dataclasses import dataclass
from datetime import datetime

from darkroom_api import names
from darkroom_api.report import TerminationMessage
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.training_job_status import Attempt, Outputs, Progress, TrainingJobStatus
from darkroom_operator.core import accounting
from darkroom_operator.core.conditions import parse_time, timestamp
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.training_job import budget, live, queueing
from darkroom_operator.core.training_job.avoidance import avoided_nodes
from darkroom_operator.core.training_job.failures import (
    DISRUPTED,
    FAILED,
    SUCCEEDED,
    SUSPENDED,
    Ending,
    Outcome,
    classify,
    to_blame,
)
from darkroom_operator.core.training_job.objects import Owner, run_folder
from darkroom_operator.core.training_job.observe import Job, Observed, Pod
from darkroom_operator.core.training_job.restart_rules import obey

RUNNING = "Running"
KEPT_ATTEMPTS = 10


@dataclass(frozen=True)
class Record:
    """The status with its attempts up to date, and how the newest ended if it ended just now."""

    status: TrainingJobStatus
    newest: Attempt | None
    ended: Outcome | None = None

    @property
    def running(self) -> Attempt | None:
        """The attempt that is under way."""
        return self.newest if self.newest and self.newest.result == RUNNING else None


def bring_up_to_date(seen: Observed, spec: TrainingJobSpec) -> Record:
    """Add an attempt whose Job the status does not know yet; close the one that has ended."""
    status = seen.status.model_copy(deep=True)
    newest = status.attempts[-1] if status.attempts else None
    if seen.jobs and (newest is None or max(seen.jobs) > newest.number):
        newest = _opened(status, seen.jobs[max(seen.jobs)])
    if newest is None or newest.result != RUNNING:
        return Record(status, newest)
    _note_admission(seen, newest)
    pods = seen.pods_of(newest.number)
    current = seen.current_pods(newest.number)
    up = sorted(pod.started_at or seen.now for pod in current if pod.up)
    if newest.running_time is None and len(up) >= spec.least_nodes:
        newest.running_time = timestamp(up[spec.least_nodes - 1])
    if spec.elastic:
        _count_nodes(seen, newest, current)
    live.take_in(seen, status, newest)
    if not _is_over(seen, newest, pods):
        return Record(status, newest)
    job = seen.jobs.get(newest.number)
    verdict = (newest.reason, newest.message or "") if newest.reason else None
    suspending = _suspending(seen, spec, job)
    if spec.elastic:
        pods = to_blame(current)
    taken = queueing.preempted(seen, newest)
    ending = Ending(job=job, pods=pods, number=newest.number, suspending=suspending, preempted=taken, verdict=verdict)
    outcome = obey(spec.restart.restart_rules or [], ending, classify(ending))
    _close(seen, spec, status, newest, outcome)
    return Record(status, newest, outcome)


def _opened(status: TrainingJobStatus, job: Job) -> Attempt:
    attempt = Attempt(
        number=job.attempt,
        job=job.name,
        uid=job.uid,
        start_time=timestamp(job.created_at),
        gang=job.gang,
        queue=job.queue,
    )
    status.attempts = [*(status.attempts or []), attempt][-KEPT_ATTEMPTS:]
    status.attempt = attempt.number
    status.start_time = status.start_time or attempt.start_time
    return attempt


def _note_admission(seen: Observed, attempt: Attempt) -> None:
    """When its queue let it start: anew if it was sent back before a pod ran. Afterwards that would end the attempt."""
    job = seen.jobs.get(attempt.number)
    if attempt.queue is None or job is None:
        return
    if attempt.admitted_time and any(pod.started_at for pod in seen.pods_of(attempt.number)):
        return
    attempt.admitted_time = timestamp(job.due_from) if job.due_from else None


def _is_over(seen: Observed, attempt: Attempt, pods: list[Pod]) -> bool:
    """The Job says so, or it is gone and so are its pods."""
    job = seen.jobs.get(attempt.number)
    if job is not None and not job.deleting:
        return job.ended is not None
    return not any(pod.live for pod in pods)


def _suspending(seen: Observed, spec: TrainingJobSpec, job: Job | None) -> bool:
    """The pods were taken away because of spec.suspend, even if it was withdrawn before the last had gone."""
    if job is None or job.deleting:
        return spec.suspend or seen.told[0] == names.REASON_SUSPENDED
    return spec.suspend and job.ended != "Complete"


def _close(
    seen: Observed, spec: TrainingJobSpec, status: TrainingJobStatus, attempt: Attempt, outcome: Outcome
) -> None:
    job = seen.jobs.get(attempt.number)
    end = (job.ended_at if job else None) or seen.now
    attempt.result, attempt.reason, attempt.message = outcome.result, outcome.reason, outcome.message  # type: ignore[assignment]
    attempt.end_time = timestamp(end)
    attempt.node = outcome.failure.node if outcome.failure else None
    status.avoided_nodes = avoided_nodes(status.attempts or []) or None
    status.disruptions = (status.disruptions or 0) + (outcome.result == DISRUPTED)
    if outcome.result == FAILED:
        status.failure = outcome.failure
    if outcome.result == SUCCEEDED:
        status.failure = None
    first = next((pod for pod in seen.current_pods(attempt.number) if pod.index == 0), None)
    report = first.terminated.report if first and first.terminated else None
    report = report or live.last_words(seen, attempt)
    if report:
        _take_report(seen, spec, status, report)
    if status.progress:
        status.progress = live.at_rest(status.progress)
    _account(seen, spec, status, attempt, end, first, report)


def _take_report(seen: Observed, spec: TrainingJobSpec, status: TrainingJobStatus, report: TerminationMessage) -> None:
    """Progress and results of node 0; a report without them leaves what earlier attempts reached."""
    status.best = report.best or status.best
    status.fidelity = report.fidelity or status.fidelity
    status.step_times = report.step_times or status.step_times
    if report.steps:
        status.progress = live.progress_of(report)
    elif report.metrics:  # a trainer that counts no steps may still measure
        status.progress = (status.progress or Progress()).model_copy(update={"metrics": report.metrics})
    known = status.outputs or Outputs()
    if report.checkpoint or report.model:
        owner = Owner(seen.name, seen.namespace, seen.uid)
        status.outputs = Outputs(
            claim=spec.checkpoint.claim if spec.checkpoint else None,
            folder=run_folder(owner, spec) if spec.checkpoint else None,
            checkpoint=report.checkpoint.path if report.checkpoint else known.checkpoint,
            model=report.model.path if report.model else known.model,
            sha256=report.model.sha256 if report.model else known.sha256,
        )


def _account(
    seen: Observed,
    spec: TrainingJobSpec,
    status: TrainingJobStatus,
    attempt: Attempt,
    end: datetime,
    first: Pod | None,
    report: TerminationMessage | None,
) -> None:
    start = parse_time(attempt.start_time) or end
    span = accounting.Span(
        start=start,
        scheduled=first.scheduled_at if first else None,
        running=first.started_at if first else None,
        end=end,
        report=report,
        finished=attempt.result == SUCCEEDED,
    )
    before = status.attempts[-2] if status.attempts and len(status.attempts) > 1 else None
    paused = parse_time(before.end_time) if before and before.result != SUSPENDED else None
    pause = max(0.0, (start - paused).total_seconds()) if paused else 0.0
    counted = max(0.0, (end - (budget.counted_from(attempt) or end)).total_seconds())
    status.active_seconds = (status.active_seconds or 0) + round(counted)
    spent = accounting.spent(span)
    attempt.time = accounting.told(spent) or None
    status.time = accounting.add(
        status.time, spent, pause=pause, saved=span.report.saved_seconds if span.report else None
    )
    status.goodput = accounting.goodput(status.time)
    if seen.profile:
        hours = accounting.billed_hours(span) * spec.nodes if not spec.elastic else accounting.node_hours(attempt, end)
        _charge(spec, status, seen.profile, hours)


def _count_nodes(seen: Observed, attempt: Attempt, current: list[Pod]) -> None:
    """Keep account of the nodes of an elastic attempt: whenever their number changes, what they took so far."""
    held = sum(pod.live and pod.scheduled_at is not None for pod in current)
    if held == attempt.nodes:
        return
    attempt.node_seconds = round(accounting.node_hours(attempt, seen.now) * 3600)
    attempt.nodes, attempt.nodes_time = held, timestamp(seen.now)


def _charge(spec: TrainingJobSpec, status: TrainingJobStatus, profile: Profile, hours: float) -> None:
    gpus = profile.accelerators_in(profile.resources_for(spec.resources_per_node))
    nodes = float(status.node_hours or 0) + hours
    accelerators = float(status.gpu_hours or 0) + hours * gpus
    status.node_hours, status.gpu_hours = f"{nodes:.4f}", f"{accelerators:.4f}"
    cost = accounting.price(profile, node_hours=nodes, gpu_hours=accelerators)
    status.cost = f"{cost:.4f} {profile.currency}" if cost else None


def backoff_seconds(spec: TrainingJobSpec, status: TrainingJobStatus) -> float:
    """Wait before the next attempt: doubled with each in a row that ended within ten minutes, up to maxBackoffSeconds.

    The first disruption in a row costs no wait: the fault was not the training's, and the next node may be free now.
    """
    ended = [attempt for attempt in status.attempts or [] if attempt.result != RUNNING]
    if not ended or ended[-1].result == SUSPENDED or ended[-1].reason == names.REASON_PREEMPTED:
        return 0.0  # with a queue, that is what paces
    row = 0
    for attempt in reversed(ended):
        if attempt.result == SUSPENDED or _lasted(attempt) > 600:
            break
        row += 1
    row = max(row, 1) - (ended[-1].result == DISRUPTED)
    restart = spec.restart
    return min(float(restart.max_backoff_seconds), restart.backoff_seconds * 2.0 ** (row - 1)) if row else 0.0


def _lasted(attempt: Attempt) -> float:
    start, end = parse_time(attempt.start_time), parse_time(attempt.end_time)
    return (end - start).total_seconds() if start and end else 0.0
