"""How the pods of a job compete for nodes."""

from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import DNS_SUBDOMAIN, Model


class Scheduling(Model):
    """How the pods compete for nodes with those of others."""

    priority_class_name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=253,
            pattern=DNS_SUBDOMAIN,
            description="PriorityClass of the pods, one of those that the profile allows. Absent: the profile's own. "
            "A change reaches the next attempt.",
        ),
    ] = None
