"""Profiles: what a platform team offers under a name. They come from the chart's values, not from users."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from darkroom_api.v1alpha1.common import Decimal, DnsLabel, Model, Quantity

DEFAULT_ACCELERATORS = ["nvidia.com/gpu", "amd.com/gpu", "google.com/tpu", "gpu.intel.com/i915", "gpu.intel.com/xe"]


class EnvVar(Model):
    """An environment variable for every training container, as NCCL_DEBUG."""

    name: str
    value: str = ""


class Toleration(Model):
    """A toleration as a pod has it."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class Identity(Model):
    """Whom the containers run as. Never root."""

    run_as_user: Annotated[int, Field(ge=1)] = 65532
    run_as_group: Annotated[int, Field(ge=1)] = 65532
    fs_group: Annotated[int, Field(ge=1)] = 65532
    supplemental_groups: list[int] = []


def _cidr(text: str) -> str:
    return str(ip_network(text))


class Egress(Model):
    """Addresses that training pods may connect to."""

    cidr: Annotated[str, AfterValidator(_cidr)]
    """As 10.20.0.0/16, or 0.0.0.0/0 for everything."""
    ports: list[Annotated[int, Field(ge=1, le=65535)]] = []
    """TCP ports; none: every port and protocol."""


class NetworkPolicy(Model):
    """Training pods talk to the pods of their own job, DNS, the operator's report port, and what is listed; nothing gets in."""

    egress: list[Egress] = []


class Profile(Model):
    """Where and how the pods of a job run, and what they cost."""

    image: str | None = None
    """Trainer image of vision jobs."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[str] = []
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    priority_class_name: str | None = None
    scheduler_name: str | None = None
    service_account_name: str | None = None
    runtime_class_name: str | None = None
    resources: dict[str, Quantity] = {}
    """Requests and limits of a pod, which a job's resourcesPerNode overrides by name."""
    max_nodes: Annotated[int | None, Field(ge=1)] = None
    accelerator_resources: list[str] = DEFAULT_ACCELERATORS
    """Resources that count as GPUs: one training process for each."""
    price_per_node_hour: Decimal = "0"
    price_per_accelerator_hour: Decimal = "0"
    currency: Annotated[str, Field(max_length=8)] = "USD"
    env: list[EnvVar] = []
    shared_memory: Quantity | None = None
    """Size of /dev/shm; absent: bounded by the pod's memory limit."""
    security_context: Identity = Identity()
    network_policy: NetworkPolicy | None = None
    """Absent: no policy is made."""
    termination_grace_period_seconds: Annotated[int, Field(ge=5, le=3600)] = 60
    annotations: dict[str, str] = {}

    def resources_for(self, asked: Mapping[str, int | str]) -> dict[str, str]:
        """The profile's resources with the job's on top; a zero takes a resource away."""
        merged = {name: str(amount) for name, amount in {**self.resources, **asked}.items()}
        return {name: amount for name, amount in merged.items() if amount != "0"}

    def accelerators_in(self, resources: Mapping[str, str]) -> int:
        """Accelerators of one pod."""
        return sum(int(resources.get(name, 0)) for name in self.accelerator_resources)


_PROFILES: TypeAdapter[dict[DnsLabel, Profile]] = TypeAdapter(dict[DnsLabel, Profile])


def parse_profiles(text: str) -> dict[str, Profile]:
    """Profiles by name from the YAML of the chart's ConfigMap; ValueError names each field that is wrong."""
    try:
        raw: Any = yaml.safe_load(text) or {}
        return _PROFILES.validate_python(raw, strict=False)
    except yaml.YAMLError as error:
        raise ValueError(f"profiles are not YAML: {error}") from error
    except ValidationError as error:
        raise ValueError("; ".join(describe_errors(error, "profiles"))) from error


def describe_errors(error: ValidationError, root: str) -> list[str]:
    """One line per problem, each with the path of the field as the user wrote it."""
    lines = []
    for problem in error.errors():
        path = ".".join([root, *(str(part) for part in problem["loc"])])
        lines.append(f"{path}: {problem['msg'].removeprefix('Value error, ')}")
    return lines
