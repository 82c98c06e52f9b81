"""What a training step takes: measured by the trainer, and what the operator's forecast is made of."""

from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import Model

ShortSeconds = Annotated[str, Field(max_length=16, pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$")]
"""A duration in seconds as a decimal string, to the microsecond."""


class StepTimes(Model):
    """Seconds of one optimizer step as rank 0 measured them: medians over the last windows, of about a second each."""

    nodes: Annotated[int, Field(ge=1, le=100_000, description="Nodes that it was measured on.")]
    processes: Annotated[int, Field(ge=1, le=1_000_000, description="Processes on all of them.")]
    batch: Annotated[int, Field(ge=1, le=2**31, description="Samples of a step, over all processes.")]
    micro_batch: Annotated[
        int | None,
        Field(ge=1, le=2**31, description="Samples that are computed at once, where that is fixed. Absent: a share."),
    ] = None
    steps_per_epoch: Annotated[
        str, Field(max_length=16, pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$", description="As a decimal string.")
    ]
    compute: Annotated[ShortSeconds, Field(description="Forward, backward, optimizer.")]
    data_wait: Annotated[ShortSeconds, Field(description="The step waited for samples.")] = "0"
    communication: Annotated[
        ShortSeconds, Field(description="Exchanging gradients, as far as compute did not hide it.")
    ] = "0"
    all_reduce: Annotated[ShortSeconds, Field(description="Exchanging gradients, hidden or not.")] = "0"
    low: Annotated[ShortSeconds, Field(description="A whole step in the fastest tenth of the windows.")]
    high: Annotated[ShortSeconds, Field(description="A whole step in the slowest tenth of the windows.")]
    gradient_bytes: Annotated[int, Field(ge=0, le=2**53, description="Bytes of gradients that a process exchanges.")]
    evaluation: Annotated[ShortSeconds, Field(description="Measuring val once.")] = "0"
    saving: Annotated[ShortSeconds, Field(description="Writing a checkpoint.")] = "0"
    startup: Annotated[ShortSeconds, Field(description="From the start of the process to its first step.")] = "0"
