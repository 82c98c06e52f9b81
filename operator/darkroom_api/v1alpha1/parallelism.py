"""How the processes of a training share the work: `spec.vision.parallelism`."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from darkroom_api.v1alpha1.common import Model, Rule


class Strategy(StrEnum):
    """What of the network a process holds."""

    DDP = "DDP"
    FSDP = "FSDP"
    PIPELINE = "Pipeline"


class PipelineSchedule(StrEnum):
    """In which order a pipeline's micro-batches go forward and backward."""

    GPIPE = "GPipe"
    ONE_F_ONE_B = "1F1B"


class Compression(StrEnum):
    """Number format in which gradients travel between processes."""

    NONE = "None"
    BF16 = "BF16"
    FP16 = "FP16"


class Parallelism(Model):
    """How the processes share the work. The result does not depend on it, but for rounding."""

    strategy: Annotated[
        Strategy,
        Field(
            description="DDP: every process holds the whole network. FSDP: each holds a part of every weight, gradient and "
            "momentum, and gathers a block of the network while it computes it: for networks that do not fit otherwise. "
            "Pipeline: each holds some of the network's stages, and micro-batches go through them one after another."
        ),
    ] = Strategy.DDP
    stages: Annotated[
        int,
        Field(
            ge=2,
            le=16,
            description="Pipeline: processes in a line, of about equal work. Of more processes, each such line computes its part "
            "of the micro-batches. A ResNet has 6 stages to divide.",
        ),
    ] = 2
    schedule: Annotated[
        PipelineSchedule,
        Field(
            description="Pipeline: GPipe sends all micro-batches forward, then all backward. 1F1B turns each back as soon as it "
            "has arrived, which keeps no more than `stages` of them in memory."
        ),
    ] = PipelineSchedule.ONE_F_ONE_B
    compress: Annotated[
        Compression,
        Field(
            description="Gradients travel between processes in this format, half as many bytes, and are summed in it: for slow "
            "networks between nodes. BF16 keeps the range of float32 and loses digits; FP16 keeps more digits and overflows "
            "beyond 65504. None: as they are."
        ),
    ] = Compression.NONE


def parallelism_rules() -> tuple[Rule, ...]:
    """The rules of `spec.vision` that a strategy brings."""

    def whole(vision: Any) -> bool:
        return bool(vision.parallelism.strategy == Strategy.DDP)

    return (
        Rule(
            cel="self.parallelism.strategy == 'DDP' || self.task == 'Classification'",
            message="parallelism.strategy FSDP and Pipeline are for Classification",
            holds=lambda v: whole(v) or v.task == "Classification",
            field="parallelism",
        ),
        Rule(
            cel="self.parallelism.strategy == 'DDP' || self.precision != 'Float16'",
            message="parallelism.strategy FSDP and Pipeline need precision BFloat16 or Float32: their losses are not scaled",
            holds=lambda v: whole(v) or v.precision != "Float16",
            field="parallelism",
        ),
        Rule(
            cel="self.parallelism.strategy == 'DDP' || !has(self.transfer) || !has(self.transfer.cacheFeatures)",
            message="transfer.cacheFeatures leaves nothing to share: parallelism.strategy must be DDP",
            holds=lambda v: whole(v) or v.transfer is None or v.transfer.cache_features is None,
            field="parallelism",
        ),
        Rule(
            cel="self.parallelism.strategy != 'Pipeline' || (!(self.model.architecture in ['googlenet', 'inception_v3']) && "
            "(!has(self.transfer) || self.transfer.policy == 'None'))",
            message="parallelism.strategy Pipeline trains all of a network that is one chain: no transfer.policy that freezes "
            "stages, and neither googlenet nor inception_v3, whose auxiliary heads branch off",
            holds=lambda v: (
                v.parallelism.strategy != Strategy.PIPELINE
                or (
                    v.model.architecture not in ("googlenet", "inception_v3")
                    and (v.transfer is None or v.transfer.policy == "None")
                )
            ),
            field="parallelism",
        ),
        Rule(
            cel="self.parallelism.strategy != 'Pipeline' || !has(self.schedule.resolution)",
            message="schedule.resolution changes what travels between stages: parallelism.strategy must be DDP or FSDP",
            holds=lambda v: v.parallelism.strategy != Strategy.PIPELINE or v.schedule.resolution is None,
            field="parallelism",
        ),
        Rule(
            cel="self.parallelism.strategy != 'Pipeline' || !has(self.microBatchSize) || "
            "self.batchSize % self.microBatchSize == 0",
            message="parallelism.strategy Pipeline needs micro-batches of one size: batchSize must be a multiple of "
            "microBatchSize",
            holds=lambda v: (
                v.parallelism.strategy != Strategy.PIPELINE
                or v.micro_batch_size is None
                or v.batch_size % v.micro_batch_size == 0
            ),
            field="parallelism",
        ),
    )
