"""What the operator reports in `status` of a TuningSweep."""

from typing import Annotated, Literal

from pydantic import Field

from darkroom_api.v1alpha1.common import Model
from darkroom_api.v1alpha1.search_space import Value
from darkroom_api.v1alpha1.training_job_status import Condition, Name, Outputs, ShortText, Time

Parameters = Annotated[dict[str, Value], Field(max_length=24)]
MAX_ROWS, MAX_PAGES = 2000, 1000
MetricValue = Annotated[str, Field(max_length=24)]


class TrialRecord(Model):
    """What came of one trial: all that later suggestions and decisions are made from."""

    number: Annotated[
        int, Field(ge=0, description="0, 1, 2, ...; the trial's TrainingJob is called `<sweep>-<number>`.")
    ]
    result: Annotated[
        Literal["Succeeded", "Pruned", "Stopped", "Failed"],
        Field(description="Pruned: not worth going on. Stopped: the sweep was over. Failed: by itself."),
    ]
    parameters: Annotated[Parameters, Field(description="Parameters by name.")] = {}
    values: Annotated[
        list[MetricValue] | None, Field(max_length=3, description="The objectives' values, in their order.")
    ] = None
    constraints: Annotated[
        list[MetricValue] | None, Field(max_length=4, description="The constraints' metrics, in their order.")
    ] = None
    curve: Annotated[
        str | None,
        Field(max_length=1000, description="Values at the epochs that pruning looks at, as `3:0.71 9:0.85`."),
    ] = None
    generation: Annotated[int | None, Field(ge=0, description="Generation of CMAES and NSGAII that it belongs to.")] = (
        None
    )
    reason: Annotated[str | None, Field(max_length=128, description="Why it failed.")] = None
    message: Annotated[str | None, Field(max_length=256, description="Why it failed, in a sentence.")] = None
    gpu_hours: Annotated[str | None, Field(max_length=24, description="Accelerator-hours.")] = None
    cost: Annotated[str | None, Field(max_length=48, description="Price, as `1.25 EUR`.")] = None
    seconds: Annotated[int | None, Field(ge=0, description="From its creation to its end.")] = None


class LedgerPage(Model):
    """A ConfigMap with records of trials, a row of JSON each, in the order of their numbers. It never changes."""

    name: Annotated[Name, Field(description="Of the ConfigMap; the rows are under its key `rows`.")]
    first: Annotated[int, Field(ge=0, description="Number of its first trial.")]
    rows: Annotated[int, Field(ge=1, description="Number of its trials.")]
    sha256: Annotated[str, Field(max_length=64, description="Of the rows' text.")]


class BestTrial(Model):
    """A trial that no other beats."""

    trial: Annotated[int, Field(description="Number.")]
    job: Annotated[Name, Field(description="Name of its TrainingJob.")]
    value: Annotated[MetricValue, Field(description="Value of the objective, or of the first.")]
    values: Annotated[list[MetricValue], Field(max_length=3, description="Values of all objectives.")]
    parameters: Annotated[Parameters, Field(description="Parameters by name.")]
    outputs: Annotated[Outputs | None, Field(description="What the trial left on its checkpoint claim.")] = None


class TrialCounts(Model):
    """Trials by what became of them."""

    created: Annotated[int, Field(description="All that were ever made.")] = 0
    running: Annotated[int, Field(description="Not at their end.")] = 0
    succeeded: Annotated[int, Field(description="Ran to their end, with a value.")] = 0
    pruned: Annotated[int, Field(description="Stopped early, as not worth going on.")] = 0
    stopped: Annotated[int, Field(description="Stopped because the sweep was over.")] = 0
    failed: Annotated[int, Field(description="Failed.")] = 0
    summary: Annotated[
        str, Field(max_length=64, description="For people: `12 of 40, 4 running, 3 pruned, 1 failed`.")
    ] = ""


class RefitStatus(Model):
    """The last training, with the best parameters."""

    job: Annotated[Name, Field(description="Name of its TrainingJob.")]
    trial: Annotated[int, Field(description="Number of the trial whose parameters it has.")]
    state: Annotated[str, Field(max_length=32, description="The TrainingJob's state.")]
    outputs: Annotated[
        Outputs | None, Field(description="What it left on its checkpoint claim: the sweep's output.")
    ] = None


class TuningSweepStatus(Model):
    """What happened so far. Written by the operator only."""

    observed_generation: Annotated[int | None, Field(description="metadata.generation that this status speaks of.")] = (
        None
    )
    conditions: Annotated[
        list[Condition] | None,
        Field(
            max_length=16,
            description="Complete and Failed: at its end, unless stopping is changed. Suspended: no trial runs, as asked. Ready, "
            "Reconciling and Stalled are for GitOps tools (kstatus).",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = None
    state: Annotated[
        str | None,
        Field(
            max_length=32,
            description="A word for people: Running, Stopping, Suspended, Stalled, Refitting, Complete, Failed.",
        ),
    ] = None
    finished: Annotated[
        bool | None,
        Field(
            description="True once the sweep is Complete or Failed: `kubectl wait --for=jsonpath={.status.finished}=true`."
        ),
    ] = None
    start_time: Annotated[Time | None, Field(description="When the first trial was made.")] = None
    completion_time: Annotated[Time | None, Field(description="When the sweep finished.")] = None
    expanded: Annotated[
        str | None,
        Field(
            max_length=32768,
            description="The search that spec.auto stands for, as YAML of a TuningSweep that can be changed and applied: "
            "`kubectl get ts NAME -o jsonpath='{.status.expanded}'`. It stays, whatever a later operator would make of auto.",
        ),
    ] = None
    trials: Annotated[TrialCounts | None, Field(description="Trials by what became of them.")] = None
    best: Annotated[BestTrial | None, Field(description="The best trial that keeps the constraints.")] = None
    pareto: Annotated[
        list[BestTrial] | None,
        Field(max_length=32, description="With several objectives: trials that no other beats in all of them."),
    ] = None
    importances: Annotated[
        dict[str, MetricValue] | None,
        Field(
            max_length=24,
            description="With one objective: each parameter's share in what made the better trials good, by PED-ANOVA (Watanabe "
            "et al., 2023). Computed at 10, 20, 40... successful trials and at the end.",
        ),
    ] = None
    gpu_hours: Annotated[str | None, Field(max_length=24, description="Accelerator-hours of all trials.")] = None
    saved_gpu_hours: Annotated[
        str | None,
        Field(
            max_length=24,
            description="Accelerator-hours that pruning saved, if each pruned trial would have taken as long as those that ran "
            "to their end.",
        ),
    ] = None
    cost: Annotated[str | None, Field(max_length=48, description="Price of all trials, as `1.25 EUR`.")] = None
    eta: Annotated[
        str | None, Field(max_length=16, description="Time to the last trial at the present pace, for people: `3h05m`.")
    ] = None
    refit: Annotated[RefitStatus | None, Field(description="The last training, with the best parameters.")] = None
    message: Annotated[ShortText | None, Field(description="What the last trial that failed died of.")] = None
    ledger: Annotated[
        list[TrialRecord] | None,
        Field(
            max_length=MAX_ROWS,
            description="Every trial that has ended, but for those of ledgerPages. It outlives the trials' TrainingJobs.",
        ),
    ] = None
    ledger_pages: Annotated[
        list[LedgerPage] | None,
        Field(
            max_length=MAX_PAGES, description="The oldest records of a long search, in ConfigMaps that the sweep owns."
        ),
    ] = None
