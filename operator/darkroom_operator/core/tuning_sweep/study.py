"""A sweep as a study of Optuna, for those who look at it: the dashboard, notebooks, the report. Nothing is decided from it."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec
from darkroom_api.v1alpha1.tuning_sweep_status import LedgerPage
from darkroom_operator.core.tuning_sweep.history import Observed, SweepFacts, observe
from darkroom_operator.core.tuning_sweep.ledger import Page, lost
from darkroom_operator.core.tuning_sweep.objects import trial_name
from darkroom_operator.core.tuning_sweep.suggest import directions, ended, shares
from darkroom_operator.core.types import Body


@dataclass(frozen=True)
class Seen:
    """A sweep that can be read, with its trials in the order of their numbers."""

    name: str
    """Namespace and name."""
    spec: TuningSweepSpec
    trials: tuple[FrozenTrial, ...]
    """One that has not ended has no parameters here: they are on its TrainingJob."""
    missing: LedgerPage | None = None
    """The first page of its ledger that it was looked at without."""


def look(body: Body, now: datetime, pages: Sequence[Page] = ()) -> Seen | None:
    """From a TuningSweep as the API server has it, and the pages of its ledger; None where its spec cannot be read."""
    seen = observe(SweepFacts(body, (), now, pages=tuple(pages)))
    if seen.spec is None:
        return None
    missing = lost(seen.status.ledger_pages or [], seen.pages)
    return Seen(f"{seen.namespace}/{seen.name}", seen.spec, tuple(_trials(seen, seen.spec)), missing)


def _trials(seen: Observed, spec: TuningSweepSpec) -> Iterable[FrozenTrial]:
    records = [*(row for page in seen.pages for row in page.rows), *(seen.status.ledger or [])]
    known, rows = ended(spec, records), {record.number: record for record in records}
    created = max([seen.status.trials.created if seen.status.trials else 0, *(number + 1 for number in known)])
    paged = sum(page.rows for page in seen.status.ledger_pages or [])
    for number in range(created):
        if number not in known:
            yield _absent(paged=number < paged)
            continue
        trial, row = known[number], rows[number]
        facts = {
            "job": trial_name(seen.name, number),
            "result": row.result,
            "reason": row.reason,
            "gpuHours": row.gpu_hours,
        }
        trial.user_attrs = {key: value for key, value in facts.items() if value}
        yield trial


def _absent(*, paged: bool) -> FrozenTrial:
    """One without a row: it runs, or its page is not there."""
    if paged:
        return optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={"result": "its page of the ledger is gone"})
    return optuna.trial.create_trial(state=TrialState.RUNNING)


def fill(storage: BaseStorage, sweeps: Iterable[Seen]) -> None:
    """A study for each sweep, in their order."""
    for sweep in sweeps:
        study = optuna.create_study(storage=storage, study_name=sweep.name, directions=directions(sweep.spec))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names of metrics are experimental, which the version pin holds still
            study.set_metric_names([objective.metric for objective in sweep.spec.objectives])
        for trial in sweep.trials:
            study.add_trial(trial)


def importances(sweep: Seen) -> dict[str, float]:
    """Share of each parameter in the differences of the first objective; empty where there is too little."""
    done = [trial for trial in sweep.trials if trial.state == TrialState.COMPLETE]
    if len(done) < 4:
        return {}
    storage = optuna.storages.InMemoryStorage()
    fill(storage, [sweep])
    return shares(optuna.load_study(study_name=sweep.name, storage=storage))
