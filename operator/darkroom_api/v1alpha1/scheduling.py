"""How the pods of a job compete for nodes."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import DNS_SUBDOMAIN, Model, Rule


class Gang(StrEnum):
    """Who sees to it that either all pods of an attempt get nodes or none."""

    AUTO = "Auto"
    NONE = "None"
    KUEUE = "Kueue"
    VOLCANO = "Volcano"
    COSCHEDULING = "Coscheduling"
    NATIVE = "Native"


QUEUEING = (Gang.AUTO, Gang.KUEUE, Gang.VOLCANO)
"""Those that know queues."""


class TopologyMode(StrEnum):
    """What happens where the pods do not fit into one domain."""

    REQUIRED = "Required"
    PREFERRED = "Preferred"


class Topology(Model):
    """Pods near each other, by Kueue's topology-aware scheduling."""

    key: Annotated[
        str,
        Field(
            min_length=1,
            max_length=316,
            pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
            description="Label of nodes whose value is the same for all pods: a level of the Topology that the queue's flavors "
            "name.",
        ),
    ]
    mode: Annotated[
        TopologyMode,
        Field(description="Required: wait for such a domain. Preferred: a wider one will do."),
    ] = TopologyMode.REQUIRED


class Scheduling(Model):
    """How the pods compete for nodes with those of others."""

    rules = (
        Rule(
            cel="!has(self.queue) || self.gang in ['Auto', 'Kueue', 'Volcano']",
            message="queue needs a scheduler that has queues: gang must be Auto, Kueue or Volcano",
            holds=lambda s: s.queue is None or s.gang in QUEUEING,
            field="queue",
        ),
        Rule(
            cel="self.gang != 'Kueue' || has(self.queue)",
            message="gang Kueue needs a queue",
            holds=lambda s: s.gang != Gang.KUEUE or s.queue is not None,
            field="gang",
        ),
        Rule(
            cel="!has(self.workloadPriorityClassName) || (has(self.queue) && self.gang != 'Volcano')",
            message="workloadPriorityClassName is Kueue's: it needs a queue, and gang Auto or Kueue",
            holds=lambda s: s.workload_priority_class_name is None or (s.queue is not None and s.gang != Gang.VOLCANO),
            field="workloadPriorityClassName",
        ),
        Rule(
            cel="!has(self.topology) || (has(self.queue) && self.gang != 'Volcano')",
            message="topology is Kueue's: it needs a queue, and gang Auto or Kueue",
            holds=lambda s: s.topology is None or (s.queue is not None and s.gang != Gang.VOLCANO),
            field="topology",
        ),
    )

    queue: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=63,
            pattern=DNS_SUBDOMAIN,
            description="Queue that every attempt waits in until there is room for all of its pods: a LocalQueue of Kueue in the "
            "job's namespace or, with gang Volcano, a Queue of Volcano. Absent: none.",
        ),
    ] = None
    gang: Annotated[
        Gang,
        Field(
            description="Who sees to it that either all pods get nodes or none. Kueue: by its quota, see queue. Volcano, "
            "Coscheduling (scheduler-plugins) and Native (scheduling.k8s.io): by a PodGroup. Auto: with a queue Kueue, or else "
            "Volcano; without one the scheduler that the profile names or the native API from v1beta1 on, where the cluster "
            "serves it; else None. An attempt's choice is in status.attempts."
        ),
    ] = Gang.AUTO
    priority_class_name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=253,
            pattern=DNS_SUBDOMAIN,
            description="PriorityClass of the pods, one of those that the profile allows. Absent: the profile's own.",
        ),
    ] = None
    workload_priority_class_name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=63,
            pattern=DNS_SUBDOMAIN,
            description="WorkloadPriorityClass by which Kueue orders its queue and preempts. Absent: the pods' PriorityClass.",
        ),
    ] = None
    topology: Annotated[Topology | None, Field(description="Pods near each other. Absent: wherever there is room.")] = (
        None
    )
