"""Why an attempt ended: an ordered list of checks; the first that answers wins, and its words are what the user reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from darkroom_api import names
from darkroom_api.report import ExitCode, Reason
from darkroom_api.v1alpha1.training_job_status import Failure
from darkroom_operator.core.training_job.last_words import LastWords, last_words
from darkroom_operator.core.training_job.observe import Job, Pod

SUCCEEDED, FAILED, DISRUPTED, SUSPENDED = "Succeeded", "Failed", "Disrupted", "Suspended"
FINISHING = (names.REASON_BUDGET_SPENT, names.REASON_TARGET_REACHED)
"""Verdicts after which an attempt is to measure and export what it has, and not merely to save and leave."""
LEAVING = (names.REASON_PRUNED, names.REASON_SWEEP_ENDED)
"""Verdicts of a sweep about its trial: it is to save and leave, and that is a good end."""
_LOG_TAIL = 2048
_FREE_VERDICTS = (names.REASON_PROFILE_CHANGED, names.REASON_PREEMPTED)
_DISTANT_FUTURE = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Ending:
    """What an ended attempt gets on record."""

    job: Job | None
    """None: somebody deleted it."""
    pods: Sequence[Pod]
    number: int
    suspending: bool
    """The pods were taken away because of spec.suspend."""
    preempted: str | None = None
    """Why its queue took the nodes back."""
    verdict: tuple[str, str] | None = None
    """Reason and message, where the operator itself ended the attempt: a deadline passed, a budget is spent."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended and what follows from it."""

    result: str
    reason: str
    message: str
    retry: bool = False
    """Whether another attempt can help."""
    free: bool = False
    """A failure that spends no restart."""
    by_rule: bool = False
    """A rule of spec.restart decided, not the defaults."""
    failure: Failure | None = None


def classify(ending: Ending) -> Outcome:
    """The first check that answers wins; its reason is what the user reads."""
    for check in (
        succeeded,
        suspended,
        ended_by_operator,
        not_worth_retrying,
        out_of_memory,
        preempted,
        lost_to_infrastructure,
        hung,
        asked_to_leave,
        deleted,
        crashed,
    ):
        if outcome := check(ending):
            return outcome
    return Outcome(FAILED, names.REASON_SOFTWARE_ERROR, _job_words(ending), retry=True)


def succeeded(ending: Ending) -> Outcome | None:
    """Every rank finished."""
    if ending.job is None or ending.job.ended != "Complete":
        return None
    report = next((p.terminated.report for p in ending.pods if p.index == 0 and p.terminated), None)
    reason = str(report.reason) if report else names.REASON_COMPLETED
    if ending.verdict and ending.verdict[0] in FINISHING:
        reason = ending.verdict[0]
        return Outcome(SUCCEEDED, reason, f"every node finished with exit code 0; {ending.verdict[1]}"[:1024])
    if ending.verdict and ending.verdict[0] in LEAVING and not (report and report.reason == Reason.COMPLETED):
        return Outcome(SUCCEEDED, *ending.verdict)
    return Outcome(SUCCEEDED, reason, "every node finished with exit code 0")


def suspended(ending: Ending) -> Outcome | None:
    """The pods left because spec.suspend asked them to; whatever their exit codes, it is free."""
    if not ending.suspending:
        return None
    return Outcome(SUSPENDED, names.REASON_SUSPENDED, "suspended as asked; the next attempt resumes", retry=True)


def ended_by_operator(ending: Ending) -> Outcome | None:
    """A deadline or a budget: whoever sets one wants to hear of it, not to meet it again. Or a change that is free."""
    if ending.verdict is None:
        return None
    reason, message = ending.verdict
    if reason in _FREE_VERDICTS:
        return Outcome(DISRUPTED, reason, message, retry=True)
    if reason == names.REASON_NO_PROGRESS:
        failure = Failure(reason=reason, attempt=ending.number, message=message, log_tail=_tails(ending.pods))
        return Outcome(FAILED, reason, message, retry=True, failure=failure)
    return Outcome(SUCCEEDED if reason in LEAVING else FAILED, reason, message)


def not_worth_retrying(ending: Ending) -> Outcome | None:
    """Bad data, bad configuration, synthetic images that are too far off: the next attempt would end in the same way."""
    hopeless: dict[int, str] = {
        ExitCode.DATA_ERROR: names.REASON_DATA_ERROR,
        ExitCode.CONFIG_ERROR: names.REASON_CONFIG_ERROR,
        ExitCode.FIDELITY_TOO_LOW: names.REASON_FIDELITY_TOO_LOW,
    }
    for pod in _by_end(ending.pods):
        if reason := hopeless.get(exit_code(pod) or 0):
            return _failed(ending, pod, reason, retry=False)
    return None


def out_of_memory(ending: Ending) -> Outcome | None:
    """The kernel's OOM killer, as kubelet or the launcher saw it."""
    for pod in _by_end(ending.pods):
        end = pod.terminated
        if end and (end.reason == "OOMKilled" or (end.report and end.report.reason == Reason.OUT_OF_MEMORY)):
            return _failed(ending, pod, names.REASON_OUT_OF_MEMORY, fallback="killed for lack of memory")
    return None


def hung(ending: Ending) -> Outcome | None:
    """A trainer's own watchdog ended it; the log's tail has the stacks of every pod that could still be asked."""
    for pod in _by_end(ending.pods):
        if pod.terminated and pod.terminated.report and pod.terminated.report.reason == Reason.NO_PROGRESS:
            outcome = _failed(ending, pod, names.REASON_NO_PROGRESS)
            if outcome.failure:
                outcome.failure.log_tail = _tails(ending.pods)
            return outcome
    return None


def _tails(pods: Sequence[Pod]) -> str | None:
    """What each pod said last, in the room that there is for one."""
    said = [(pod.name, tail) for pod in pods if (tail := _tail(pod))]
    if len(said) == 1:
        return said[0][1]
    room = _LOG_TAIL // max(1, len(said))
    return "\n".join(f"--- {name}\n{tail}"[: room - 1] for name, tail in said) or None


def _tail(pod: Pod) -> str | None:
    """Stacks have their innermost frames first; of anything else, the end matters."""
    end = pod.terminated
    text = ((end.report.log_tail or "") if end.report else end.text.strip()) if end else ""
    return text[-_LOG_TAIL:] or None


def preempted(ending: Ending) -> Outcome | None:
    """The Job was suspended by its queue; pods that leave with a code fail it, for the Job controller counts them."""
    by_themselves = [pod for pod in _ended_badly(ending) if not pod.deleting]
    if ending.preempted is None or by_themselves:
        return None
    return Outcome(DISRUPTED, names.REASON_PREEMPTED, ending.preempted[:1024], retry=True)


def lost_to_infrastructure(ending: Ending) -> Outcome | None:
    """Drained, evicted, preempted, or gone with its node."""
    for pod in _by_end(ending.pods):
        if pod.disrupted:
            message = f"node {pod.index} was taken away from {pod.node or 'its node'}: {pod.disrupted}"
            return Outcome(DISRUPTED, names.REASON_DISRUPTED, message, retry=True)
    return None


def asked_to_leave(ending: Ending) -> Outcome | None:
    """A rank left after SIGTERM that the attempt's own end did not cause."""
    ends = _by_end(ending.pods)
    first = ends[0] if ends else None
    if first is None:
        return None
    said_so = exit_code(first) == ExitCode.ASKED_TO_LEAVE
    killed_while_leaving = first.deleting and exit_code(first) in (ExitCode.KILLED, 143)
    if not said_so and not killed_while_leaving:
        return None
    message = f"node {first.index} was asked to leave{_saved(first)}"
    return Outcome(DISRUPTED, names.REASON_ASKED_TO_LEAVE, message, retry=True)


def deleted(ending: Ending) -> Outcome | None:
    """Somebody deleted the Job, or its pods' records, of a running attempt."""
    if ending.job is None or ending.job.ended is None:
        return Outcome(DISRUPTED, names.REASON_JOB_DELETED, "the attempt's Job was deleted", retry=True)
    if not any(pod.terminated for pod in ending.pods):
        message = f"no pod is left to say why: {_job_words(ending)}"
        return Outcome(DISRUPTED, names.REASON_DISRUPTED, message, retry=True)
    return None


def crashed(ending: Ending) -> Outcome | None:
    """A process ended badly: the first one by time that does not merely complain about another."""
    if causes := culprits(ending):
        return blame(ending, causes[0])
    if ends := _ended_badly(ending):
        return _failed(ending, ends[0], names.REASON_PEER_LOST, fallback=f"exit code {exit_code(ends[0])}")
    return None


def culprits(ending: Ending) -> list[Pod]:
    """Pods that ended badly by themselves, first to end first."""
    return [pod for pod in _ended_badly(ending) if not pod.disrupted and not _complains_of_peer(pod)]


def blame(ending: Ending, pod: Pod) -> Outcome:
    """This pod's process failed, by itself."""
    code = exit_code(pod)
    reason = names.REASON_KILLED if code == ExitCode.KILLED else names.REASON_SOFTWARE_ERROR
    return _failed(ending, pod, reason, fallback=f"exit code {code}")


def to_blame(pods: Sequence[Pod]) -> list[Pod]:
    """Of an elastic attempt: pods that were taken away, or left as they were asked to, did not end it if another did."""
    own = [pod for pod in pods if pod.disrupted is None and exit_code(pod) not in (None, 0, ExitCode.ASKED_TO_LEAVE)]
    others = [pod for pod in pods if pod.terminated is None or exit_code(pod) == 0]
    return [*own, *others] if any(not _complains_of_peer(pod) for pod in own) else list(pods)


def _ended_badly(ending: Ending) -> list[Pod]:
    return [pod for pod in _by_end(ending.pods) if exit_code(pod) not in (None, 0)]


def _failed(ending: Ending, pod: Pod, reason: str, *, retry: bool = True, fallback: str = "") -> Outcome:
    failure = describe(pod, reason, ending.number, fallback)
    where = f"node {pod.index}" if failure.rank is None else f"rank {failure.rank}"
    code = f"exit code {failure.exit_code}"
    words = code if failure.message == code else f"{failure.message} ({code})"
    message = f"{where} in pod {pod.name} on {pod.node or 'no node'}: {words}"
    return Outcome(FAILED, reason, message[:1024], retry=retry, failure=failure)


def describe(pod: Pod, reason: str, attempt: int, fallback: str = "") -> Failure:
    """The failing process, from its termination message or, without one, from what kubelet kept of its log."""
    end = pod.terminated
    report = end.report if end else None
    text = end.text.strip() if end and not report else ""
    words = LastWords(report.error or "", report.rank) if report else last_words(text)
    return Failure(
        reason=reason,
        attempt=attempt,
        rank=words.rank,
        pod=pod.name,
        node=pod.node,
        exit_code=end.exit_code if end else None,
        message=(words.message or fallback or "no message")[:1024],
        log_tail=_tail(pod),
    )


def _by_end(pods: Sequence[Pod]) -> list[Pod]:
    """Pods that ended or were taken away, first to end first; those the Job controller deleted afterwards come last."""
    gone = [pod for pod in pods if pod.terminated or pod.disrupted]
    return sorted(gone, key=lambda pod: ((_finished_at(pod)), pod.deleting, pod.index))


def _finished_at(pod: Pod) -> datetime:
    return (pod.terminated.finished_at if pod.terminated else None) or _DISTANT_FUTURE


def exit_code(pod: Pod) -> int | None:
    """Of the pod's container, once it has ended."""
    return pod.terminated.exit_code if pod.terminated else None


def _complains_of_peer(pod: Pod) -> bool:
    report = pod.terminated.report if pod.terminated else None
    if report:
        return report.reason in (Reason.PEER_LOST, Reason.ASKED_TO_LEAVE)
    return pod.deleting and exit_code(pod) in (ExitCode.ASKED_TO_LEAVE, ExitCode.KILLED, 143)


def _saved(pod: Pod) -> str:
    report = pod.terminated.report if pod.terminated else None
    return f" and saved at step {report.checkpoint_step}" if report and report.checkpoint_step else ""


def _job_words(ending: Ending) -> str:
    job = ending.job
    return f"{job.reason}: {job.message}" if job and job.reason else "the Job failed"
