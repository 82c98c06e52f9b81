"""The environment by which torchrun's agents find each other.

Every option of torchrun reads a variable with the prefix PET_ (torch.distributed.run). Static needs the node's rank and
node 0's address; C10d needs the address of the store on node 0, and the built-in launcher passes `is_host` to it, because
torch's own guess compares host names and can be wrong in a pod.
"""

from typing import Any

from darkroom_api import names
from darkroom_api.v1alpha1.training_job import Rendezvous, TrainingJobSpec

INDEX_LABEL = "metadata.labels['batch.kubernetes.io/job-completion-index']"


def rendezvous_of(spec: TrainingJobSpec) -> Rendezvous:
    """What the spec asks for, or the default: C10d with the built-in launcher, Static for a bare torchrun."""
    if spec.rendezvous:
        return Rendezvous(spec.rendezvous)
    return Rendezvous.C10D if spec.vision else Rendezvous.STATIC


def torchrun_env(spec: TrainingJobSpec, *, host: str, processes: int, run_id: str) -> list[dict[str, Any]]:
    """PET_* for every pod of an attempt.

    host: name that resolves to node 0; run_id: new for each attempt, so that late agents of an old one cannot join.
    """
    fixed = {
        "PET_NNODES": f"{spec.least_nodes}:{spec.nodes}" if spec.elastic else str(spec.nodes),
        "PET_NPROC_PER_NODE": str(processes),
        "PET_MAX_RESTARTS": "0",  # restarts are the operator's: one owner of time and cost
        "PET_RDZV_ID": run_id,
        "PET_MASTER_ADDR": host,
        "PET_MASTER_PORT": str(names.MASTER_PORT),
    }
    if rendezvous_of(spec) == Rendezvous.C10D:
        fixed |= {"PET_RDZV_BACKEND": "c10d", "PET_RDZV_ENDPOINT": f"{host}:{names.RENDEZVOUS_PORT}"}
    else:
        fixed |= {"PET_RDZV_BACKEND": "static"}
    env: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in fixed.items()]
    env.append({"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": INDEX_LABEL}}})
    if rendezvous_of(spec) == Rendezvous.C10D:
        env.append({"name": "PET_LOCAL_ADDR", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    return env
