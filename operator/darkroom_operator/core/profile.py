"""Profiles: what a platform team offers under a name. They come from the chart's values, not from users."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from darkroom_api.v1alpha1.common import (
    DNS_SUBDOMAIN,
    Decimal,
    DnsLabel,
    Model,
    Quantity,
    describe_errors,
    whole_number,
)

DEFAULT_ACCELERATORS = [
    "nvidia.com/gpu",
    "nvidia.com/gpu.shared",  # a share of one, by time or by process
    "nvidia.com/mig-*",  # a slice of one, as nvidia.com/mig-1g.10gb
    "amd.com/gpu",
    "gpu.intel.com/i915",
    "gpu.intel.com/xe",
    "google.com/tpu",
]


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


class ResourceClaim(Model):
    """Devices by dynamic resource allocation: each pod gets a claim of its own, made from a template."""

    name: DnsLabel
    resource_claim_template_name: Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
    """A ResourceClaimTemplate in the job's namespace."""
    accelerators: Annotated[int, Field(ge=0, le=64)] = 0
    """Devices in it that count as GPUs: the template says so to the scheduler alone."""


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
    priority_classes: list[str] = []
    """What a job may ask for instead."""
    scheduler_name: str | None = None
    service_account_name: str | None = None
    runtime_class_name: str | None = None
    resources: dict[str, Quantity] = {}
    """Requests and limits of a pod, which a job's resourcesPerNode overrides by name."""
    max_nodes: Annotated[int | None, Field(ge=1)] = None
    accelerator_resources: list[Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")]] = DEFAULT_ACCELERATORS
    """Resources that count as GPUs, with `*` for any text: one training process for each."""
    resource_claims: list[ResourceClaim] = []
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
        """Accelerators of one pod with these resources, those of its claims included."""
        counted = sum(int(amount) for name, amount in resources.items() if self._is_accelerator(name))
        return counted + sum(claim.accelerators for claim in self.resource_claims)

    def _is_accelerator(self, resource: str) -> bool:
        return any(fnmatchcase(resource, pattern) for pattern in self.accelerator_resources)

    @property
    def allowed_priorities(self) -> list[str]:
        """Priority classes that a job may have: the profile's own, and the list."""
        own = [self.priority_class_name] if self.priority_class_name else []
        return list(dict.fromkeys([*own, *self.priority_classes]))

    @model_validator(mode="after")
    def _devices_are_whole(self) -> Self:
        for name, amount in self.resources.items():
            if "/" in name and not whole_number(amount):
                raise ValueError(f"resources must give devices such as {name} in whole numbers")
        return self


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
