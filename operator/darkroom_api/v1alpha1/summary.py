"""What a run leaves for people to look at."""

from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import Model


class Summary(Model):
    """Besides the model and its card, which every run leaves."""

    html: Annotated[
        bool,
        Field(
            description="summary.html beside the checkpoints, after every evaluation: curves, confusions, worst mistakes, "
            "where time and money went. One file, without a server."
        ),
    ] = True
    tensor_board: Annotated[
        bool, Field(description="TensorBoard's event files in the folder tensorboard/ beside the checkpoints.")
    ] = False
