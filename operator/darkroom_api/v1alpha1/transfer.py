"""Transfer learning: `spec.vision.model.weights` and `spec.vision.transfer`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import ClaimName, Fraction, Model, Rule, Sha256, VolumePath

DEFAULT_WEIGHTS = "Default"


class MissingWeights(StrEnum):
    """What to do without the file."""

    FAIL = "Fail"
    SCRATCH = "Scratch"


class Weights(Model):
    """A file of pretrained weights; nothing is ever downloaded."""

    rules = (
        Rule(
            cel="has(self.path) != has(self.name)",
            message="exactly one of path and name must be set",
            holds=lambda w: (w.path is None) != (w.name is None),
        ),
    )
    claim: Annotated[ClaimName, Field(description="PersistentVolumeClaim with the file; it is mounted read-only.")]
    path: Annotated[VolumePath | None, Field(description="The file inside the claim: .safetensors, .pt or .pth.")] = (
        None
    )
    name: Annotated[
        str | None,
        Field(
            pattern=rf"^({DEFAULT_WEIGHTS}|[A-Za-z0-9_]{{1,64}}\.[A-Z0-9_]{{1,64}})$",
            max_length=129,
            description="Weights by torchvision's name, as ResNet50_Weights.IMAGENET1K_V2, in a claim that holds torch's hub "
            "cache: the file is looked for in hub/checkpoints, checkpoints and the top folder. Its name's digest is checked. "
            f"{DEFAULT_WEIGHTS}: those that torchvision takes for the architecture's best.",
        ),
    ] = None
    sha256: Annotated[Sha256 | None, Field(description="SHA-256 of the file in hex; the job fails if it differs.")] = (
        None
    )
    missing: Annotated[
        MissingWeights,
        Field(
            description="What a file that is not there means. Scratch: training begins without it, and without transfer."
        ),
    ] = MissingWeights.FAIL


class TransferPolicy(StrEnum):
    """Which stages of a pretrained network learn, and when."""

    NONE = "None"
    HEAD = "Head"
    LAST_STAGES = "LastStages"
    GRADUAL = "Gradual"
    HEAD_THEN_ALL = "HeadThenAll"


class BatchNorm(StrEnum):
    """What BatchNorm layers below the head do."""

    FROZEN = "Frozen"
    ADAPT = "Adapt"
    TRAIN = "Train"


class FeatureCache(Model):
    """What the frozen stages make of each image, computed once and kept on disk."""

    views: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="Augmented versions of each training image that are kept; epochs take turns. With 1 and crop Center "
            "the result is that of training without the cache.",
        ),
    ] = 1
    claim: Annotated[
        ClaimName | None,
        Field(
            description="PersistentVolumeClaim for features that other jobs use too. They fit if weights, frozen stages, "
            "images and preprocessing are the same. Absent: the run's folder, and removed when they are no longer needed."
        ),
    ] = None


class Transfer(Model):
    """How a pretrained network is adapted to new images."""

    rules = (
        Rule(
            cel="!has(self.cacheFeatures) || self.policy != 'None'",
            message="cacheFeatures needs a policy that freezes stages",
            holds=lambda t: t.cache_features is None or t.policy != "None",
            field="cacheFeatures",
        ),
        Rule(
            cel="!has(self.cacheFeatures) || self.batchNorm != 'Adapt'",
            message="cacheFeatures needs frozen stages that stay as they are: batchNorm must not be Adapt",
            holds=lambda t: t.cache_features is None or t.batch_norm != "Adapt",
            field="batchNorm",
        ),
    )
    policy: Annotated[
        TransferPolicy,
        Field(
            description="Head: only the last layer learns. LastStages: it and the last `stages` of the network. Gradual: one "
            "more stage every `phaseEpochs`, from the head down. HeadThenAll: the head for `phaseEpochs`, then everything. "
            "None: everything, from the start."
        ),
    ] = TransferPolicy.HEAD_THEN_ALL
    stages: Annotated[
        int, Field(ge=1, le=64, description="LastStages: how many stages learn besides the head; a ResNet has 5.")
    ] = 1
    phase_epochs: Annotated[
        int, Field(ge=1, le=10000, description="Gradual and HeadThenAll: epochs before the next stages begin to learn.")
    ] = 1
    layer_decay: Annotated[
        Fraction,
        Field(
            description="Learning rate of a stage, as a factor of that of the stage above it; the head has the optimizer's. "
            "1: all the same."
        ),
    ] = "0.5"
    batch_norm: Annotated[
        BatchNorm,
        Field(
            description="Train: stages that learn use and update batch statistics, frozen ones keep theirs. Frozen: all keep "
            "the pretrained ones, for small batches. Adapt: all update them, frozen ones too."
        ),
    ] = BatchNorm.TRAIN
    cache_features: Annotated[
        FeatureCache | None,
        Field(description="Run the frozen stages once per image and keep what comes out; absent: off."),
    ] = None


def transfer_rules() -> tuple[Rule, ...]:
    """The rules of `spec.vision` that transfer learning brings."""
    return (
        Rule(
            cel="!has(self.transfer) || self.transfer.policy == 'None' || has(self.model.weights)",
            message="transfer needs model.weights: freezing what was never trained helps nobody",
            holds=lambda v: v.transfer is None or v.transfer.policy == "None" or v.model.weights is not None,
            field="transfer",
        ),
        Rule(
            cel="!has(self.transfer) || self.transfer.policy != 'HeadThenAll' || "
            "self.transfer.phaseEpochs < self.schedule.epochs",
            message="HeadThenAll needs transfer.phaseEpochs to be less than schedule.epochs",
            holds=lambda v: (
                v.transfer is None or v.transfer.policy != "HeadThenAll" or v.transfer.phase_epochs < v.schedule.epochs
            ),
            field="transfer",
        ),
        Rule(
            cel="!has(self.transfer) || !has(self.transfer.cacheFeatures) || "
            "(double(self.augmentation.mixup) == 0.0 && double(self.augmentation.cutmix) == 0.0)",
            message="transfer.cacheFeatures keeps features of single images: augmentation.mixup and cutmix must be 0",
            holds=lambda v: (
                v.transfer is None
                or v.transfer.cache_features is None
                or float(v.augmentation.mixup) == float(v.augmentation.cutmix) == 0
            ),
            field="transfer",
        ),
    )
