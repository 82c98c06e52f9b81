"""What the core and the shell hand each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from darkroom_api.report import LiveReport
from darkroom_api.step_times import StepTimes

Body = Mapping[str, Any]
"""A Kubernetes object as the API server's JSON says it."""


@dataclass(frozen=True)
class Children:
    """Everything in the cluster that belongs to one TrainingJob, from the caches."""

    jobs: tuple[Body, ...] = ()
    pods: tuple[Body, ...] = ()
    """Pods that exist, and pods seen to go less than ten minutes ago (`departed`), with their last status."""
    services: tuple[Body, ...] = ()
    network_policies: tuple[Body, ...] = ()
    workloads: tuple[Body, ...] = ()
    """What Kueue made of a Job that is suspended; not looked for otherwise."""
    departed: frozenset[str] = frozenset()
    """UIDs of those in `pods` that no longer exist."""


@dataclass(frozen=True)
class Event:
    """An events.k8s.io/v1 Event about the TrainingJob; sent only after the status is stored."""

    type: str  # Normal | Warning
    reason: str
    note: str
    action: str = "Reconcile"


@dataclass(frozen=True)
class Delete:
    """An object to delete; the UID is a precondition, so that a namesake is never hit."""

    kind: str  # TrainingJob | Job | NetworkPolicy
    name: str
    uid: str


@dataclass(frozen=True)
class Patch:
    """A merge patch of an object; the UID is a precondition, so that a namesake is never hit."""

    kind: str  # TrainingJob
    name: str
    uid: str
    change: Body


@dataclass(frozen=True)
class Plan:
    """What to do about one TrainingJob or TuningSweep, in this order: apply, create, patch, delete, status, events.

    create: objects that are made once and then left alone (Jobs, PodGroups, trials): "already exists" is success if they are
    owned by us.
    apply: objects kept as desired by server-side apply (Services, NetworkPolicies).
    status: the whole desired status; the shell writes it only when it differs.
    requeue_after: seconds until time alone changes the plan.
    """

    create: tuple[Body, ...] = ()
    apply: tuple[Body, ...] = ()
    patch: tuple[Patch, ...] = ()
    delete: tuple[Delete, ...] = ()
    status: Body | None = None
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None


@dataclass(frozen=True)
class Refusal:
    """The API server's no to one of our writes."""

    kind: str
    name: str
    code: int
    message: str


@dataclass(frozen=True)
class Live:
    """The newest live report of one TrainingJob."""

    uid: str
    """Of the TrainingJob."""
    attempt: int
    received: datetime
    report: LiveReport


@dataclass(frozen=True)
class Precedent:
    """What an earlier job of the same work has measured."""

    name: str
    step_times: StepTimes


@dataclass(frozen=True)
class Channel:
    """Where training pods send their live reports."""

    address: str
    """`host:port`."""
    authority: str
    """PEM of the certificate that signed the server's."""


@dataclass(frozen=True)
class Facts:
    """All that `plan` may look at."""

    body: Body
    children: Children
    now: datetime
    profiles: Mapping[str, Any] = field(default_factory=dict)
    """Profile by name (core/profile.py)."""
    refusal: Refusal | None = None
    """What the API server answered to the last try, until a try succeeds."""
    live: Live | None = None
    """None as well when this operator has just started: it is told again within seconds."""
    channel: Channel | None = None
    """None: pods of a new attempt send no live reports."""
    listening_since: datetime | None = None
    """When this operator began to take live reports; silence before that says nothing."""
    served: Mapping[str, str] = field(default_factory=dict)
    """API version by gang scheduler (queueing.APIS), as far as the API server serves them."""
    precedent: Precedent | None = None
    """Of the same work, the newest."""
    trace_id: str | None = None
    """Of the job's trace, once it was sent to a collector."""
