"""What the operator reports in `status` of a TrainingJob."""

from typing import Annotated, Literal

from pydantic import Field

from darkroom_api.report import Best, Fidelity, Metric
from darkroom_api.step_times import StepTimes
from darkroom_api.v1alpha1.common import Model
from darkroom_api.v1alpha1.forecast import Forecast
from darkroom_api.v1alpha1.straggler import Straggler

Seconds = Annotated[str, Field(max_length=16, pattern=r"^[0-9]{1,10}(\.[0-9]{1,3})?$")]
"""A duration in seconds, as a decimal string."""
Hours = Annotated[str, Field(max_length=24, pattern=r"^[0-9]+(\.[0-9]+)?$")]
"""Hours, as a decimal string."""
Time = Annotated[
    str,
    Field(
        max_length=32,
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$",
        json_schema_extra={"format": "date-time"},
    ),
]
"""A moment as the API server writes it: UTC, to the second or finer."""
ShortText = Annotated[str, Field(max_length=1024)]
Name = Annotated[str, Field(max_length=253)]
ShortName = Annotated[str, Field(max_length=63)]


class Condition(Model):
    """A condition as metav1.Condition has it."""

    type: Annotated[str, Field(max_length=316, description="Kind of condition.")]
    status: Annotated[Literal["True", "False", "Unknown"], Field(description="True, False or Unknown.")]
    observed_generation: Annotated[int, Field(description="metadata.generation that it speaks of.")]
    last_transition_time: Annotated[Time, Field(description="When status last changed.")]
    reason: Annotated[str, Field(min_length=1, max_length=128, description="Cause, in one CamelCase word.")]
    message: Annotated[str, Field(max_length=2048, description="Cause, in a sentence.")]


class Progress(Model):
    """How far the training is, as the trainer last said."""

    epoch: Annotated[int, Field(description="Epochs finished.")] = 0
    epochs: Annotated[int, Field(description="Epochs of the whole schedule.")] = 0
    step: Annotated[int, Field(description="Optimizer steps done.")] = 0
    percent: Annotated[int, Field(ge=0, le=100, description="Share of the steps that are done.")] = 0
    images_per_second: Annotated[
        str | None, Field(max_length=24, description="Training images per second over all nodes.")
    ] = None
    eta_seconds: Annotated[int | None, Field(description="Seconds to the end at the present speed.")] = None
    eta_low_seconds: Annotated[
        int | None, Field(description="The same at the speed that only a tenth of the last intervals reached.")
    ] = None
    eta_high_seconds: Annotated[
        int | None, Field(description="The same at the speed that all but a tenth of the last intervals reached.")
    ] = None
    eta: Annotated[
        str | None, Field(max_length=48, description="Time to the end with its range, for people: `41m (38m-47m)`.")
    ] = None
    checkpoint_step: Annotated[
        int | None, Field(description="Step of the newest checkpoint: what a restart now would go on from.")
    ] = None
    metrics: Annotated[list[Metric] | None, Field(max_length=16, description="Latest metrics.")] = None
    straggler: Annotated[
        Straggler | None,
        Field(description="The process that holds up all others, while one does for half a minute and more."),
    ] = None
    step_time: Annotated[
        Time | None,
        Field(description="When the running attempt last reported a step that it had not reported before."),
    ] = None
    report_time: Annotated[
        Time | None,
        Field(description="When the running attempt said so. Absent: no attempt runs, or it sends no live reports."),
    ] = None


class Attempt(Model):
    """One run of the whole gang of pods: one batch/v1 Job."""

    number: Annotated[int, Field(ge=1, description="1, 2, 3, ...")]
    job: Annotated[Name, Field(description="Name of its Job.")]
    uid: Annotated[str, Field(max_length=64, description="UID of its Job.")]
    start_time: Annotated[Time, Field(description="When the Job was created.")]
    gang: Annotated[
        str | None,
        Field(max_length=16, description="Who schedules its pods all or none: Kueue, Volcano, Coscheduling or Native."),
    ] = None
    queue: Annotated[ShortName | None, Field(description="Queue of Kueue that it waits, or waited, in.")] = None
    pod_group: Annotated[Name | None, Field(description="PodGroup of its pods, once that is made.")] = None
    admitted_time: Annotated[
        Time | None, Field(description="When its queue let it start. Deadlines and budgets count from then.")
    ] = None
    running_time: Annotated[Time | None, Field(description="When every pod was running for the first time.")] = None
    yield_time: Annotated[
        Time | None,
        Field(description="When it was asked to save and leave, before its pods would be deleted."),
    ] = None
    end_time: Annotated[Time | None, Field(description="When the last pod had ended.")] = None
    result: Annotated[
        Literal["Running", "Succeeded", "Failed", "Disrupted", "Suspended"],
        Field(
            description="Failed attempts spend maxRestarts, unless a restart rule says RestartForFree; Disrupted and Suspended "
            "ones are free."
        ),
    ] = "Running"
    reason: Annotated[str | None, Field(max_length=128, description="Why it ended, or is being ended.")] = None
    message: Annotated[ShortText | None, Field(description="Why it ended, in a sentence.")] = None
    node: Annotated[Name | None, Field(description="Node of the process that failed first.")] = None
    time: Annotated[
        dict[str, Seconds] | None,
        Field(max_length=16, description="Where its time went: the buckets of status.time that are not 0, in seconds."),
    ] = None
    nodes: Annotated[int | None, Field(description="Elastic jobs: pods that hold a node.")] = None
    nodes_time: Annotated[Time | None, Field(description="Elastic jobs: since when it is so many.")] = None
    node_seconds: Annotated[
        int | None,
        Field(ge=0, le=2**53, description="Elastic jobs: seconds that all pods together held nodes before that."),
    ] = None


class Failure(Model):
    """The process that failed first."""

    reason: Annotated[str, Field(max_length=128, description="OutOfMemory, DataError, SoftwareError, ...")]
    attempt: Annotated[int, Field(description="Number of the attempt.")]
    rank: Annotated[int | None, Field(description="Global rank, where it is known.")] = None
    pod: Annotated[Name | None, Field(description="Pod.")] = None
    node: Annotated[Name | None, Field(description="Node that it ran on.")] = None
    exit_code: Annotated[int | None, Field(description="Exit code of the container.")] = None
    message: Annotated[ShortText | None, Field(description="Error class and first line.")] = None
    log_tail: Annotated[str | None, Field(max_length=2048, description="Last lines of the log.")] = None


class TimeSpent(Model):
    """Where the wall clock went, over all attempts; the buckets sum to `total`. Seconds, as node 0 saw them."""

    total: Annotated[Seconds, Field(description="From the creation of the first pods to the end, less time suspended.")]
    queued: Annotated[Seconds, Field(description="Waiting in a queue and for a node.")] = "0"
    image_pull: Annotated[Seconds, Field(description="Pulling images and mounting volumes.")] = "0"
    startup: Annotated[Seconds, Field(description="Imports, reading the data folder, building the network.")] = "0"
    rendezvous: Annotated[Seconds, Field(description="Waiting for the other nodes.")] = "0"
    compile: Annotated[Seconds, Field(description="Compiling the network.")] = "0"
    data_wait: Annotated[Seconds, Field(description="The step waited for images.")] = "0"
    compute: Annotated[Seconds, Field(description="Forward, backward, optimizer.")] = "0"
    communication: Annotated[Seconds, Field(description="Exchanging gradients, as far as compute did not hide it.")] = (
        "0"
    )
    evaluation: Annotated[Seconds, Field(description="Measuring val and test.")] = "0"
    checkpoint: Annotated[Seconds, Field(description="Saving.")] = "0"
    restore: Annotated[Seconds, Field(description="Loading a checkpoint.")] = "0"
    lost_work: Annotated[Seconds, Field(description="Attempts or parts of them whose work was not saved.")] = "0"
    other: Annotated[Seconds, Field(description="The rest: back-off between attempts, shutting down.")] = "0"
    saved: Annotated[
        Seconds | None,
        Field(description="What cached features made unnecessary, by estimate: not spent, and no part of `total`."),
    ] = None


class Outputs(Model):
    """What the run left on the checkpoint claim."""

    claim: Annotated[Name | None, Field(description="PersistentVolumeClaim.")] = None
    folder: Annotated[str | None, Field(max_length=1400, description="The run's folder inside it.")] = None
    checkpoint: Annotated[str | None, Field(max_length=512, description="Newest checkpoint, below the folder.")] = None
    model: Annotated[str | None, Field(max_length=512, description="Exported model, below the folder.")] = None
    sha256: Annotated[str | None, Field(max_length=64, description="SHA-256 of the exported model.")] = None


class Resolved(Model):
    """What names in the spec stood for when the newest attempt was made."""

    image: Annotated[str | None, Field(max_length=512, description="Image.")] = None
    profile: Annotated[str | None, Field(max_length=63, description="Profile.")] = None
    num_proc_per_node: Annotated[int | None, Field(description="Processes per pod.")] = None


class Point(Model):
    """A metric at the end of an epoch."""

    epoch: Annotated[int, Field(ge=1, description="Epochs finished.")]
    value: Annotated[str, Field(max_length=24, description="Value as a decimal string.")]
    seconds: Annotated[
        int | None, Field(ge=0, description="Seconds of training until then, over all attempts; starts do not count.")
    ] = None


class TrainingJobStatus(Model):
    """What happened so far. Written by the operator only."""

    observed_generation: Annotated[int | None, Field(description="metadata.generation that this status speaks of.")] = (
        None
    )
    conditions: Annotated[
        list[Condition] | None,
        Field(
            max_length=16,
            description="Complete and Failed are final. Suspended: no pods, as asked. Ready, Reconciling and Stalled are for "
            "GitOps tools (kstatus).",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = None
    state: Annotated[
        str | None,
        Field(
            max_length=32,
            description="A word for people: Queued, Pending, Running, Stopping, Restarting, Suspended, Stalled, Complete, "
            "Failed.",
        ),
    ] = None
    finished: Annotated[
        bool | None,
        Field(
            description="True once the job is Complete or Failed: `kubectl wait --for=jsonpath={.status.finished}=true`."
        ),
    ] = None
    nodes: Annotated[str | None, Field(max_length=16, description="Running pods of those wanted, as `1/2`.")] = None
    start_time: Annotated[Time | None, Field(description="When the first attempt was made.")] = None
    completion_time: Annotated[Time | None, Field(description="When the job finished.")] = None
    attempt: Annotated[int | None, Field(description="Number of the newest attempt.")] = None
    restarts: Annotated[int | None, Field(description="Attempts that spent maxRestarts.")] = None
    disruptions: Annotated[
        int | None, Field(description="Attempts that were lost to the infrastructure; they are free.")
    ] = None
    active_seconds: Annotated[
        int | None,
        Field(description="Seconds of all finished attempts, less those in a queue; the deadline counts them."),
    ] = None
    attempts: Annotated[list[Attempt] | None, Field(max_length=10, description="The last ten attempts.")] = None
    progress: Annotated[Progress | None, Field(description="How far the training is, as the trainer last said.")] = None
    best: Annotated[Best | None, Field(description="Best value of the metric that the model is chosen by.")] = None
    fidelity: Annotated[
        Fidelity | None,
        Field(
            description="With `synthetic.gate`: what the synthetic images are like and worth, measured before training."
        ),
    ] = None
    curve: Annotated[
        list[Point] | None,
        Field(
            max_length=200,
            description="Of a sweep's trial: the objective by epoch. Beyond 200 epochs only every second is kept, beyond 400 "
            "every fourth, and so on.",
        ),
    ] = None
    time: Annotated[TimeSpent | None, Field(description="Where the time went, known at the end of each attempt.")] = (
        None
    )
    goodput: Annotated[
        str | None, Field(max_length=8, description="Share of that time in which the network was trained, as 0.63.")
    ] = None
    node_hours: Annotated[Hours | None, Field(description="Pod-hours over all attempts.")] = None
    gpu_hours: Annotated[Hours | None, Field(description="Accelerator-hours over all attempts.")] = None
    cost: Annotated[
        str | None,
        Field(
            max_length=48,
            pattern=r"^[0-9]+(\.[0-9]+)?( .{0,8})?$",
            description="Price of all attempts by the profile, as `1.25 EUR`.",
        ),
    ] = None
    step_times: Annotated[
        StepTimes | None, Field(description="What a step takes, as the trainer last measured it.")
    ] = None
    forecast: Annotated[
        Forecast | None,
        Field(
            description="How long the whole training takes on other numbers of nodes: an estimate. Absent before anything "
            "was measured, by this job or an earlier one of the same work."
        ),
    ] = None
    failure: Annotated[
        Failure | None, Field(description="The process that failed first in the last failed attempt.")
    ] = None
    avoided_nodes: Annotated[
        list[Name] | None,
        Field(
            max_length=5,
            description="Nodes on which the training failed first in two or more of these attempts. The next attempt goes "
            "elsewhere, if it can.",
        ),
    ] = None
    outputs: Annotated[Outputs | None, Field(description="What the run left on the checkpoint claim.")] = None
    resolved: Annotated[Resolved | None, Field(description="What names in the spec stood for.")] = None
    trace_id: Annotated[
        str | None,
        Field(max_length=32, description="OpenTelemetry trace of its life, once that was sent to a collector."),
    ] = None
