"""A job whose number of nodes follows what there is."""

from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import Model, Rule


class Elastic(Model):
    """Bounds of the number of nodes. The global batch stays what it is, so the result does too."""

    rules = (
        Rule(
            cel="self.minNodes < self.maxNodes",
            message="minNodes must be smaller than maxNodes",
            holds=lambda e: e.min_nodes < e.max_nodes,
            field="minNodes",
        ),
    )
    min_nodes: Annotated[int, Field(ge=1, le=1000, description="Pods without which the training waits.")]
    max_nodes: Annotated[
        int,
        Field(ge=2, le=1000, description="Pods that the job asks for. Those that find no node join when there is one."),
    ]
