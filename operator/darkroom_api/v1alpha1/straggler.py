"""A process that holds up the others: in reports and in a job's status."""

from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import Model


class Straggler(Model):
    """A process that has been slower than all others for a while."""

    rank: Annotated[int, Field(ge=0, le=2**31 - 1, description="Global rank of the process.")]
    ratio: Annotated[
        str,
        Field(
            max_length=24,
            description="What it takes for its own part of a step, as a multiple of the median of the others.",
        ),
    ]
