"""Decide: everything that a user of a TuningSweep would call behaviour. Pure; the shell carries the Plan out, in a thread.

Nothing is remembered but what is in the API server: the trials that exist, and the ledger in the sweep's status. A trial is
made under a name that follows from its number, so a second try meets the first; it is deleted only when its row is stored.
"""

from dataclasses import replace

from darkroom_api import names
from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec
from darkroom_api.v1alpha1.tuning_sweep_status import LedgerPage, TrialRecord, TuningSweepStatus
from darkroom_operator.core.conditions import parse_time
from darkroom_operator.core.training_job.status import Phase, completed, failed, stalled, stopping, suspended
from darkroom_operator.core.tuning_sweep import ledger, objects, prune, status
from darkroom_operator.core.tuning_sweep import stopping as endings
from darkroom_operator.core.tuning_sweep.events import events_between
from darkroom_operator.core.tuning_sweep.history import History, Observed, SweepFacts, Trial, best_of, history, observe
from darkroom_operator.core.tuning_sweep.suggest import Pending, suggest
from darkroom_operator.core.types import Body, Delete, Patch, Plan


def plan(facts: SweepFacts) -> Plan:
    """What to do about one sweep now."""
    seen = observe(facts)
    if seen.deleting:
        return Plan()  # the garbage collector takes the trials
    if seen.spec is None:
        return _say(seen, None, None, stalled(names.REASON_INVALID_SPEC, "; ".join(seen.problems)))
    if page := ledger.lost(seen.status.ledger_pages or [], seen.pages):
        return _say(seen, None, None, stalled(names.REASON_LEDGER_LOST, _lost(page)))
    past = history(seen, seen.spec)
    if seen.spec.suspend:
        return _suspend(seen, seen.spec, past)
    if over := endings.verdict(seen, seen.spec, past):
        return _end(seen, seen.spec, past, over)
    if seen.refusal:
        reason = names.REASON_NAME_TAKEN if seen.refusal.code == 409 else names.REASON_REJECTED
        message = f"{seen.refusal.kind} {seen.refusal.name} was refused: {seen.refusal.message}"
        return _say(seen, seen.spec, past, stalled(reason, message), patch=_pruned(seen, seen.spec, past))
    return _search(seen, seen.spec, past)


def _lost(page: LedgerPage) -> str:
    trials = f"trials {page.first} to {page.first + page.rows - 1}"
    return (
        f"ConfigMap {page.name} with the record of {trials} is not there as it was: restore it, or create a new sweep"
    )


# --- The search ---


def _search(seen: Observed, spec: TuningSweepSpec, past: History) -> Plan:
    """Let trials go on or end them, and fill what is free with new ones."""
    patch = (*_resumed(past.running), *_pruned(seen, spec, past))
    create: list[Body] = []
    pending = past.pending
    number = past.created
    while len(pending) < spec.parallelism and number < spec.stopping.max_trials:
        suggestion = suggest(spec, seen.seed, number, past.recent, pending, past.pages)
        if suggestion is None:
            if not pending:
                return _end(seen, spec, past, endings.exhausted(past))
            break
        try:
            create.append(objects.trial(seen, spec, number, suggestion))
        except objects.InvalidTrial as problem:
            if create or pending != past.pending:
                break  # what is made so far comes first; the same suggestion follows then
            return _record_invalid(seen, spec, past, suggestion.parameters, str(problem))
        pending.append(Pending(number, suggestion.parameters, suggestion.generation))
        number += 1
    phase = status.searching(f"{len(pending)} of {spec.parallelism} trials run")
    return _say(seen, spec, past, phase, create=tuple(create), patch=patch)


def _record_invalid(
    seen: Observed, spec: TuningSweepSpec, past: History, parameters: dict[str, str], problem: str
) -> Plan:
    """A trial that cannot be: on record at once, so that its number is spent and the sampler learns."""
    row = TrialRecord(
        number=past.created,
        result="Failed",
        parameters=parameters,
        reason=names.REASON_INVALID_PARAMETERS,
        message=problem[:256],
    )
    now = replace(past, records=(*past.records, row), created=past.created + 1)
    phase = status.searching(f"{len(past.running)} of {spec.parallelism} trials run")
    return _say(seen, spec, now, phase, wait=0.0)


def _pruned(seen: Observed, spec: TuningSweepSpec, past: History) -> tuple[Patch, ...]:
    """Trials whose newest value is not worth going on. The order goes on the trial, and from there into its next report."""
    if spec.pruning is None:
        return ()
    found = []
    for trial in past.running:
        if trial.leave or not trial.curve:
            continue
        number = trial.number or 0
        maximize = prune.is_maximized(spec.objectives[0].direction)
        question = prune.Question(number, trial.curve, past.peers(number), maximize, seen.uid)
        if why := prune.verdict(spec.pruning, question):
            found.append(_leave(trial, names.REASON_PRUNED, why))
    return tuple(found)


def _leave(trial: Trial, reason: str, message: str) -> Patch:
    change = {"metadata": {"annotations": {names.ANNOTATION_LEAVE: f"{reason}: {message}"[:1024]}}}
    return Patch("TrainingJob", trial.name, trial.uid, change)


def _resumed(jobs: tuple[Trial, ...]) -> tuple[Patch, ...]:
    return tuple(_suspension(job, wanted=False) for job in jobs if job.suspended and not job.finished)


def _suspension(job: Trial, *, wanted: bool) -> Patch:
    return Patch("TrainingJob", job.name, job.uid, {"spec": {"suspend": wanted}})


def _suspend(seen: Observed, spec: TuningSweepSpec, past: History) -> Plan:
    """Trials keep their numbers and go on from their checkpoints later."""
    jobs = [job for job in (*past.running, *seen.refits) if not job.finished]
    patch = tuple(_suspension(job, wanted=True) for job in jobs if not job.suspended)
    left = [job for job in jobs if job.status.state != "Suspended"]
    phase = suspended()
    if left:
        phase = stopping("suspending: waiting for trials to save and leave", names.REASON_SUSPENDED)
    return _say(seen, spec, past, phase, patch=patch)


# --- The end ---


def _end(seen: Observed, spec: TuningSweepSpec, past: History, over: endings.Verdict) -> Plan:
    """Wait for what runs, or stop it; then the refit; then the last word."""
    if past.running:
        if over.hurry:
            leave = [_leave(t, names.REASON_SWEEP_ENDED, over.message) for t in past.running if not t.leave]
            phase = stopping(f"{over.message}; waiting for trials to save and leave", over.reason)
            return _say(seen, spec, past, phase, patch=tuple(leave))
        phase = status.searching(f"{over.message}; {len(past.running)} still run")
        return _say(seen, spec, past, phase, patch=(*_resumed(past.running), *_pruned(seen, spec, past)))
    if over.failed:
        return _say(seen, spec, past, failed(over.reason, over.message))
    best = best_of(past.records, spec)
    if not best:
        return _say(seen, spec, past, failed(names.REASON_NO_RESULT, _nothing(spec, past, over)))
    if spec.refit and not _refitted(seen, best[0].number):
        return _refit(seen, spec, past, best[0], over)
    return _say(seen, spec, past, completed(over.reason, over.message))


def _nothing(spec: TuningSweepSpec, past: History, over: endings.Verdict) -> str:
    if any(record.result == "Succeeded" for record in past.records):
        bounds = ", ".join(constraint.metric for constraint in spec.constraints or [])
        return f"{over.message}; no trial keeps the constraints on {bounds}"
    return f"{over.message}; none of them ended with a value"


def _refitted(seen: Observed, number: int) -> bool:
    """Done before, even if its TrainingJob is gone by now."""
    told = seen.status.refit
    name = objects.refit_name(seen.name, number)
    gone = all(job.name != name for job in seen.refits)
    return told is not None and told.job == name and told.state == "Complete" and gone


def _refit(seen: Observed, spec: TuningSweepSpec, past: History, best: TrialRecord, over: endings.Verdict) -> Plan:
    name = objects.refit_name(seen.name, best.number)
    job = next((job for job in seen.refits if job.name == name), None)
    if job is None:
        try:
            body = objects.refit(seen, spec, best.number, best.parameters)
        except objects.InvalidTrial as problem:
            return _say(seen, spec, past, failed(names.REASON_REFIT_FAILED, f"spec.refit: {problem}"))
        if seen.refusal:
            message = f"{seen.refusal.kind} {seen.refusal.name} was refused: {seen.refusal.message}"
            return _say(seen, spec, past, stalled(names.REASON_REJECTED, message))
        return _say(seen, spec, past, _refitting(name), create=(body,))
    if not job.finished:
        return _say(seen, spec, past, _refitting(name), refit=job, patch=_resumed((job,)))
    if job.status.state != "Complete":
        reason, message = job.ended
        words = f"TrainingJob {name}: {reason}: {message}"
        return _say(seen, spec, past, failed(names.REASON_REFIT_FAILED, words), refit=job)
    return _say(seen, spec, past, completed(over.reason, over.message), refit=job)


def _refitting(name: str) -> Phase:
    return Phase("Refitting", names.REASON_REFITTING, f"TrainingJob {name} trains with the best parameters")


# --- Words and leftovers ---


def _expired(seen: Observed, ttl: int | None, new: TuningSweepStatus) -> tuple[tuple[Delete, ...], float | None]:
    """Trials past their ttlSecondsAfterFinished whose rows are stored, and seconds until the next is."""
    paged = {record.number: record for page in seen.pages for record in page.rows}
    stored = {record.number: record for record in seen.status.ledger or []} | paged
    wanted = {record.number: record for record in new.ledger or []} | paged
    best = {b.trial for b in [*(new.pareto or []), *([new.best] if new.best else [])]}
    gone, waits = [], []
    for trial in seen.trials:
        ended = parse_time(trial.status.completion_time)
        number = trial.number or 0
        if ttl is None or not trial.finished or ended is None or trial.deleting or number in best:
            continue
        left = ttl - (seen.now - ended).total_seconds()
        if left > 0:
            waits.append(left)
        elif stored.get(number) == wanted.get(number) is not None:
            gone.append(Delete("TrainingJob", trial.name, trial.uid))
    return tuple(gone), min(waits, default=None)


def _pages(seen: Observed, new: TuningSweepStatus) -> tuple[Body, ...]:
    """The next page of the ledger, if one is due, and those that somebody deleted."""
    unfinished = {trial.number or 0 for trial in seen.trials if not trial.finished}
    rows = [page.rows for page in seen.pages if page.name in seen.gone]
    if seen.refusal is None and (due := ledger.due(seen.status.ledger or [], new.ledger or [], unfinished)):
        rows.append(tuple(due))
    return tuple(ledger.page(seen.name, seen.namespace, seen.uid, some) for some in rows)


def _say(
    seen: Observed,
    spec: TuningSweepSpec | None,
    past: History | None,
    phase: Phase,
    *,
    create: tuple[Body, ...] = (),
    patch: tuple[Patch, ...] = (),
    refit: Trial | None = None,
    wait: float | None = None,
) -> Plan:
    """A plan whose status tells `phase`."""
    new = status.render(seen, spec, past, phase, refit)
    pages = _pages(seen, new) if past else ()
    if pages:
        wait = 0.0  # the rows leave the status when the page has been seen
    gone, expiry = _expired(seen, spec.trial_template.spec.ttl_seconds_after_finished if spec else None, new)
    deadline = endings.seconds_left(seen, spec) if spec and not phase.finished else None
    due = deadline if deadline is not None and deadline > 0 else None
    waits = [seconds for seconds in (wait, expiry, due) if seconds is not None]
    return Plan(
        create=(*create, *pages),
        patch=patch,
        delete=gone,
        status=new.to_wire(),
        events=events_between(seen.status, new),
        requeue_after=min(waits, default=None),
    )
