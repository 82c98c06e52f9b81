"""How long a whole training takes, and what it costs, on other numbers of nodes: `status.forecast`."""

from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import Model

WholeSeconds = Annotated[int, Field(ge=0, le=2**53)]


class NodesForecast(Model):
    """The whole training on one number of nodes."""

    nodes: Annotated[int, Field(ge=1, le=100_000, description="Nodes.")]
    seconds: Annotated[WholeSeconds, Field(description="Seconds from the start of the trainer to its end.")]
    low_seconds: Annotated[WholeSeconds, Field(description="The same if all goes well ...")]
    high_seconds: Annotated[WholeSeconds, Field(description="... and if it does not.")]
    duration: Annotated[str, Field(max_length=48, description="The three for people: `41m (38m-55m)`.")]
    cost: Annotated[
        str | None,
        Field(max_length=80, description="Price of that time by the profile, with its range: `6.10 USD (5.60-8.20)`."),
    ] = None


class Forecast(Model):
    """An estimate, and as such without waiting in queues, pulling images and restarts."""

    basis: Annotated[str, Field(max_length=512, description="What was measured, and what is assumed.")]
    by_nodes: Annotated[list[NodesForecast], Field(max_length=8, description="By number of nodes.")]
