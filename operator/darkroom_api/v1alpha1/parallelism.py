"""How the processes of a training share the work: `spec.vision.parallelism`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import Model


class Compression(StrEnum):
    """Number format in which gradients travel between processes."""

    NONE = "None"
    BF16 = "BF16"
    FP16 = "FP16"


class Parallelism(Model):
    """How the processes share the work. The result does not depend on it, but for rounding."""

    compress: Annotated[
        Compression,
        Field(
            description="Gradients travel between processes in this format, half as many bytes, and are summed in it: for slow "
            "networks between nodes. BF16 keeps the range of float32 and loses digits; FP16 keeps more digits and overflows "
            "beyond 65504. None: as they are."
        ),
    ] = Compression.NONE
