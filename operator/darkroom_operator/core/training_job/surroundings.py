"""What an attempt's pods need around them: names for each other, and a fence. Kept as desired while the job runs."""

from dataclasses import dataclass

from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_operator.core.training_job import objects
from darkroom_operator.core.training_job.observe import Observed
from darkroom_operator.core.types import Body, Delete


@dataclass(frozen=True)
class Surroundings:
    """What to do about them; all empty if they are as they should be."""

    create: tuple[Body, ...] = ()
    apply: tuple[Body, ...] = ()
    delete: tuple[Delete, ...] = ()


def surroundings(seen: Observed, spec: TrainingJobSpec) -> Surroundings:
    """Service and NetworkPolicy, each before the pods that need it."""
    service, policy = _service(seen, spec), _network_policy(seen, spec)
    return Surroundings(service.create + policy.create, service.apply + policy.apply, policy.delete)


def owner_of(seen: Observed) -> objects.Owner:
    """The TrainingJob, for its children."""
    return objects.Owner(seen.name, seen.namespace, seen.uid)


def _service(seen: Observed, spec: TrainingJobSpec) -> Surroundings:
    if spec.nodes == 1:
        return Surroundings()
    return _kept(objects.service(owner_of(seen), spec), seen.services)


def _network_policy(seen: Observed, spec: TrainingJobSpec) -> Surroundings:
    """As the profile says now, not as it said when the attempt began: a fence is the platform team's, at any time."""
    if seen.profile is None:
        return Surroundings()
    if seen.profile.network_policy is None:
        found = [p["metadata"] for p in seen.network_policies if "deletionTimestamp" not in p["metadata"]]
        return Surroundings(delete=tuple(Delete("NetworkPolicy", meta["name"], meta["uid"]) for meta in found))
    return _kept(objects.network_policy(owner_of(seen), spec, seen.profile.network_policy), seen.network_policies)


def _kept(wanted: Body, present: tuple[Body, ...]) -> Surroundings:
    """Create it, or put it right by apply."""
    found = next((body for body in present if body["metadata"]["name"] == wanted["metadata"]["name"]), None)
    if found is None:
        return Surroundings(create=(wanted,))
    kept = all(found["spec"].get(field) == value for field, value in wanted["spec"].items())
    return Surroundings() if kept or "deletionTimestamp" in found["metadata"] else Surroundings(apply=(wanted,))
