"""What the built-in vision trainer reads: `spec.vision` of a TrainingJob, and the file that runs it anywhere."""

from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from darkroom_api.v1alpha1.architectures import ARCHITECTURES, RESNETS
from darkroom_api.v1alpha1.augmentation import Augmentation, augmentation_rules
from darkroom_api.v1alpha1.common import Decimal, Fraction, Model, Rule
from darkroom_api.v1alpha1.data import Data
from darkroom_api.v1alpha1.measured import Measured, Normalization
from darkroom_api.v1alpha1.parallelism import Parallelism, parallelism_rules
from darkroom_api.v1alpha1.progression import EarlyStop, Resolution, progression_rules
from darkroom_api.v1alpha1.summary import Summary
from darkroom_api.v1alpha1.synthetic import Synthetic, synthetic_rules
from darkroom_api.v1alpha1.tasks import Task, size_rule, task_rules
from darkroom_api.v1alpha1.transfer import Transfer, Weights, transfer_rules


class Stem(StrEnum):
    """First layers of a ResNet."""

    STANDARD = "Standard"
    SMALL_IMAGE = "SmallImage"


def _known(architecture: str) -> str:
    if architecture not in ARCHITECTURES:
        near = get_close_matches(architecture.lower(), ARCHITECTURES, n=3) or sorted(ARCHITECTURES)
        raise ValueError(f"not an architecture of torchvision; there are {', '.join(near)}")
    return architecture


class Architecture(Model):
    """The network."""

    rules = (
        Rule(
            cel="self.stem == 'Standard' || self.architecture.matches('^(wide_)?resne(x)?t')",
            message="stem SmallImage is for the ResNet family",
            holds=lambda m: m.stem == "Standard" or m.architecture in RESNETS,
            field="stem",
        ),
    )
    architecture: Annotated[
        str,
        AfterValidator(_known),
        WithJsonSchema({"type": "string", "enum": sorted(ARCHITECTURES)}),
        Field(description="Architecture by its torchvision name."),
    ]
    weights: Annotated[
        Weights | None,
        Field(
            description="Pretrained weights to start from. The head is replaced if its class count differs. Segmentation and "
            "Detection take those of the whole network, or of its backbone as a classification network."
        ),
    ] = None
    stem: Annotated[
        Stem,
        Field(
            description="SmallImage replaces the 7x7/2 convolution and the max-pool of a ResNet by a 3x3/1 convolution, "
            "which keeps the detail of images of 64 px and less."
        ),
    ] = Stem.STANDARD


class OptimizerName(StrEnum):
    """Optimizers, by their torch names."""

    SGD = "SGD"
    ADAMW = "AdamW"


class Optimizer(Model):
    """How a gradient becomes a step. Norm layers and biases get no weight decay."""

    name: Annotated[OptimizerName, Field(description="Optimizer.")] = OptimizerName.SGD
    learning_rate: Annotated[
        Decimal, Field(description="Peak learning rate, for the global `batchSize` as it stands.")
    ] = "0.1"
    momentum: Annotated[Fraction, Field(description="Momentum of SGD (Nesterov), first beta of AdamW.")] = "0.9"
    weight_decay: Annotated[Decimal, Field(description="Weight decay.")] = "0.0001"
    clip_norm: Annotated[
        Decimal | None, Field(description="Gradients are scaled down to this norm at most; absent: off.")
    ] = None


class Decay(StrEnum):
    """Shape of the learning rate after the warm-up."""

    COSINE = "Cosine"
    LINEAR = "Linear"
    STEP = "Step"


class Schedule(Model):
    """How long, and how the learning rate goes. Cosine and Linear end at zero."""

    epochs: Annotated[int, Field(ge=1, le=10000, description="Passes over the training images.")] = 30
    warmup_epochs: Annotated[
        Decimal, Field(description="Epochs in which the learning rate rises linearly from zero.")
    ] = "1"
    decay: Annotated[Decay, Field(description="Shape of the decay.")] = Decay.COSINE
    step_epochs: Annotated[int, Field(ge=1, le=10000, description="Step: epochs between two drops.")] = 30
    step_factor: Annotated[Fraction, Field(description="Step: factor of each drop.")] = "0.1"
    label_smoothing: Annotated[Fraction, Field(description="Label smoothing of the loss.")] = "0"
    resolution: Annotated[
        Resolution | None, Field(description="Small images first; absent: `imageSize` from the beginning.")
    ] = None
    early_stop: Annotated[EarlyStop | None, Field(description="End on a plateau; absent: off.")] = None


class Ema(Model):
    """Exponential moving average of the weights; it is what is evaluated and exported."""

    decay: Annotated[
        Fraction,
        Field(description="Decay per step at a global batch of 1024 images; it is rescaled to the batch in use."),
    ] = "0.999"
    every_steps: Annotated[
        int, Field(ge=1, le=1000, description="Steps between two updates; the decay is rescaled to them too.")
    ] = 1


class Precision(StrEnum):
    """Number format of the forward pass."""

    AUTO = "Auto"
    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"


class MemoryFormat(StrEnum):
    """Layout of image tensors."""

    AUTO = "Auto"
    CONTIGUOUS = "Contiguous"
    CHANNELS_LAST = "ChannelsLast"


class Vision(Model):
    """Training with the built-in trainer: declare the data, the network and the recipe; no code."""

    rules = (
        size_rule(),
        *task_rules(),
        *progression_rules(),
        *augmentation_rules(),
        *synthetic_rules(),
        Rule(
            cel="!has(self.measure) || self.task == 'Classification'",
            message="measure is for Classification",
            holds=lambda v: v.measure is None or v.task == Task.CLASSIFICATION,
            field="measure",
        ),
        Rule(
            cel="!has(self.microBatchSize) || self.microBatchSize <= self.batchSize",
            message="microBatchSize must not be greater than batchSize",
            holds=lambda v: v.micro_batch_size is None or v.micro_batch_size <= v.batch_size,
            field="microBatchSize",
        ),
        Rule(
            cel="type(self.workers) == int ? int(self.workers) >= 0 && int(self.workers) <= 64 : "
            "string(self.workers) == 'Auto'",
            message="workers must be Auto or a number from 0 to 64",
            holds=lambda v: v.workers == "Auto" or 0 <= v.workers <= 64,
            field="workers",
        ),
        *transfer_rules(),
        *parallelism_rules(),
    )
    task: Annotated[Task, Field(description="What is learned.")] = Task.CLASSIFICATION
    data: Annotated[Data, Field(description="The images.")]
    model: Annotated[Architecture, Field(description="The network.")]
    transfer: Annotated[
        Transfer | None,
        Field(description="How the pretrained network is adapted. Absent: all of it learns at one learning rate."),
    ] = None
    synthetic: Annotated[
        Synthetic | None, Field(description="Synthetic images among the training images; absent: none.")
    ] = None
    image_size: Annotated[
        int, Field(ge=16, le=2048, description="Height and width that the network sees, in pixels.")
    ] = 224
    batch_size: Annotated[
        int,
        Field(
            ge=1,
            le=65536,
            description="Global batch: images per optimizer step over all processes. It stays the same on any number of them.",
        ),
    ] = 64
    micro_batch_size: Annotated[
        int | None,
        Field(
            ge=1,
            le=65536,
            description="Most images that one process takes at once; the rest is accumulated. Absent: batchSize over processes, "
            "halved until it fits into the GPUs.",
        ),
    ] = None
    parallelism: Annotated[Parallelism, Field(description="How the processes share the work.")] = Parallelism()
    augmentation: Annotated[Augmentation, Field(description="Random changes to training images.")] = Augmentation()
    normalization: Annotated[Normalization, Field(description="Default: ImageNet's.")] = Normalization()
    measure: Annotated[
        list[Measured] | None,
        Field(
            max_length=3,
            description="What the trainer finds out from the training images, in place of what is said here. ImageSize: the "
            "median of their shorter sides in steps of 32 px, at most imageSize. Normalization: their channels' mean and "
            "standard deviation, unless there are pretrained weights. Stem: SmallImage for a ResNet without weights on images "
            "of 64 px and less, unless they were enlarged fourfold.",
        ),
    ] = None
    optimizer: Annotated[Optimizer, Field(description="How a gradient becomes a step.")] = Optimizer()
    schedule: Annotated[Schedule, Field(description="How long, and how the learning rate goes.")] = Schedule()
    ema: Annotated[Ema | None, Field(description="Moving average of the weights; absent: off.")] = None
    precision: Annotated[
        Precision,
        Field(
            description="Auto: bfloat16 on a GPU that has it, else float16 with loss scaling on a GPU, else float32."
        ),
    ] = Precision.AUTO
    memory_format: Annotated[
        MemoryFormat, Field(description="Auto: channels-last for convolutional networks; without a GPU from 64 px on.")
    ] = MemoryFormat.AUTO
    workers: Annotated[
        int | Literal["Auto"],
        WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": "^Auto$", "maxLength": 4}),
        Field(
            description="Loader processes per training process, 0 to 64. Auto: from the pod's CPU limit, not the node's CPUs."
        ),
    ] = "Auto"
    seed: Annotated[int, Field(ge=0, le=2147483647, description="Seed of weights, order and augmentation.")] = 0
    deterministic: Annotated[
        bool, Field(description="Only deterministic kernels: the same bits every time, at some cost.")
    ] = False
    summary: Annotated[Summary, Field(description="What the run leaves for people to look at.")] = Summary()


class CheckpointPolicy(Model):
    """When to save, and how many to keep."""

    every_seconds: Annotated[
        int,
        Field(
            ge=1, le=86400, description="Seconds between two checkpoints. One more is written at the end of training."
        ),
    ] = 300
    keep: Annotated[int, Field(ge=1, le=100, description="Newest checkpoints to keep; the best is kept besides.")] = 2


class TrainerConfig(Model):
    """Everything that `python -m darkroom_trainer train CONFIG.json` needs: the operator writes it, or you do."""

    vision: Vision
    data_dir: Annotated[str, Field(description="Where the data claim is; `vision.data.path` is below it.")]
    weights_dir: Annotated[str | None, Field(description="Where the weights claim is.")] = None
    run_dir: Annotated[str, Field(description="Folder for metrics.jsonl, checkpoints/ and model/.")]
    cache_dir: Annotated[
        str | None,
        Field(description="Folder for cached features that other runs use too. Absent: features/ in runDir."),
    ] = None
    budget_seconds: Annotated[
        int | None,
        Field(
            ge=1,
            description="Seconds that the run may take, over all its starts. The schedule is fitted to them, and ends at zero. "
            "Absent: as long as it takes.",
        ),
    ] = None
    price_per_hour: Annotated[
        Decimal | None,
        Field(description="What all nodes together cost in an hour, for the summary. Absent: not known."),
    ] = None
    currency: Annotated[str, Field(max_length=8, description="Of the price.")] = "USD"
    checkpoint: CheckpointPolicy = CheckpointPolicy()
