"""Volumes of a training pod, and where they are mounted."""

from typing import Any

from darkroom_api import names
from darkroom_api.v1alpha1.training_job import Container, TrainingJobSpec
from darkroom_api.v1alpha1.vision import Vision
from darkroom_operator.core.profile import Profile

Object = dict[str, Any]


def feature_claim(vision: Vision) -> str | None:
    """The claim of features that jobs share."""
    cache = vision.transfer.cache_features if vision.transfer else None
    return cache.claim if cache else None


def _claims(spec: TrainingJobSpec) -> dict[str, bool]:
    """Claims of the job, and whether every use of each is read-only."""
    uses: list[tuple[str, bool]] = []
    if spec.vision:
        uses.append((spec.vision.data.claim, True))
        if spec.vision.model.weights:
            uses.append((spec.vision.model.weights.claim, True))
        if features := feature_claim(spec.vision):
            uses.append((features, False))
    if spec.container:
        uses += [(mount.claim, mount.read_only) for mount in spec.container.mounts or []]
    if spec.checkpoint:
        uses.append((spec.checkpoint.claim, False))
    claims: dict[str, bool] = {}
    for claim, read_only in uses:
        claims[claim] = claims.get(claim, True) and read_only
    return claims


def _volume_name(spec: TrainingJobSpec, claim: str) -> str:
    return f"claim-{list(_claims(spec)).index(claim)}"


def volumes(spec: TrainingJobSpec, profile: Profile) -> list[Object]:
    """One per claim, and what the pod has for itself."""
    memory: Object = {"medium": "Memory"}
    if profile.shared_memory is not None:
        memory["sizeLimit"] = str(profile.shared_memory)
    made: list[Object] = [{"name": "shm", "emptyDir": memory}, {"name": "tmp", "emptyDir": {}}]
    if not spec.checkpoint:
        made.append({"name": "runs", "emptyDir": {}})
    for claim, read_only in _claims(spec).items():
        source: Object = {"claimName": claim} | ({"readOnly": True} if read_only else {})
        made.append({"name": _volume_name(spec, claim), "persistentVolumeClaim": source})
    return made


def mounts(spec: TrainingJobSpec) -> list[Object]:
    """Where the container sees them."""
    made: list[Object] = [
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - 64 MB by default, too little for loader workers
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
    ]
    runs = _volume_name(spec, spec.checkpoint.claim) if spec.checkpoint else "runs"
    made.append({"name": runs, "mountPath": names.RUNS_DIR})
    if spec.vision:
        made += _vision_mounts(spec, spec.vision)
    return made + _container_mounts(spec, spec.container)


def _vision_mounts(spec: TrainingJobSpec, vision: Vision) -> list[Object]:
    mounts = [{"name": _volume_name(spec, vision.data.claim), "mountPath": names.DATA_DIR, "readOnly": True}]
    if weights := vision.model.weights:
        mounts.append({"name": _volume_name(spec, weights.claim), "mountPath": names.WEIGHTS_DIR, "readOnly": True})
    if features := feature_claim(vision):
        mounts.append({"name": _volume_name(spec, features), "mountPath": names.FEATURES_DIR})
    return mounts


def _container_mounts(spec: TrainingJobSpec, container: Container | None) -> list[Object]:
    return [
        {"name": _volume_name(spec, m.claim), "mountPath": m.mount_path} | ({"readOnly": True} if m.read_only else {})
        for m in (container.mounts if container else None) or []
    ]
