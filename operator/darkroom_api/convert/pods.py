"""A pod template to what a TrainingJob says of its pods: container, resources, claims."""

from typing import Any

from darkroom_api.convert.source import ConversionError, Source
from darkroom_api.v1alpha1.search_space import is_reserved

Object = dict[str, Any]
PROFILE = "a profile of the platform team says this"
_PROFILES = (
    "affinity",
    "hostIPC",
    "hostNetwork",
    "imagePullSecrets",
    "nodeSelector",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "tolerations",
)
_OWN_DIRS = ("/darkroom", "/dev", "/tmp")  # noqa: S108 - names of mounts, nothing is written here
_SHARED_MEMORY = "/dev/shm"  # noqa: S108


def pods(template: Source, *, container_name: str | None, image: str | None) -> Object:
    """Spec fields of a TrainingJob from a pod template: container, resourcesPerNode, scheduling.

    container_name: of the one that trains; None: the first. image: in place of one that the template leaves out.
    """
    meta, pod = template.at("metadata"), template.at("spec")
    for key in ("annotations", "labels"):
        meta.lose(key, PROFILE)
    container = _the_container(pod, container_name)
    for key in _PROFILES:
        pod.lose(key, PROFILE)
    pod.lose("initContainers", "no counterpart: prepare the data with a Job of its own")
    pod.pass_over("restartPolicy", "terminationGracePeriodSeconds")
    container.lose("imagePullPolicy", PROFILE)
    container.lose("securityContext", PROFILE)
    container.pass_over("name", "ports")
    made = container_of(container, image) | {"mounts": _mounts(container, pod)}
    resources = resources_of(container.at("resources"))
    priority = pod.get("priorityClassName")
    return {
        "container": {key: value for key, value in made.items() if value},
        **({"resourcesPerNode": resources} if resources else {}),
        **({"scheduling": {"priorityClassName": priority}} if priority else {}),
    }


def _the_container(pod: Source, name: str | None) -> Source:
    containers = pod.each("containers")
    found = [container for container in containers if name in (None, container.value.get("name"))]
    if not found:
        raise ConversionError(f"{pod.path}.containers: none is called {name}")
    for other in containers:
        if other is not found[0]:
            other.pass_over(*other.value)
            other.note("one container of a pod trains; another has no counterpart")
    return found[0]


def container_of(container: Source, image: str | None) -> Object:
    """Image, command, arguments and environment."""
    given = container.text("image") or image
    if given is None:
        raise ConversionError(f"{container.path}.image is absent: say which with --image")
    made: Object = {"image": given}
    for key in ("command", "args"):
        if words := container.get(key):
            made[key] = [str(word) for word in words]
    if env := [found for item in container.each("env") if (found := _variable(item))]:
        made["env"] = env
    container.lose("envFrom", "write the variables out; secrets belong to a profile")
    return made


def _variable(item: Source) -> Object | None:
    name = item.text("name") or ""
    if is_reserved(name):
        item.lose("name", "the operator sets this variable itself")
        item.pass_over("value", "valueFrom")
        return None
    if item.value.get("valueFrom"):
        item.lose("valueFrom", f"{name} must have a plain value; secrets belong to a profile")
        return None
    return {"name": name, "value": item.text("value") or ""}


def resources_of(resources: Source) -> Object:
    """Limits over requests, for here they are the same."""
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for name in sorted(requests.keys() & limits.keys()):
        if str(requests[name]) != str(limits[name]):
            resources.note(f"a pod asks for its limit, {limits[name]}", f"requests.{name}")
    resources.lose("claims", PROFILE)
    merged = {**requests, **limits}
    return {name: value if isinstance(value, int) else str(value) for name, value in merged.items()}


def _mounts(container: Source, pod: Source) -> list[Object]:
    volumes = {volume.value.get("name"): volume for volume in pod.each("volumes")}
    found = []
    for mount in container.each("volumeMounts"):
        name, path = mount.get("name"), str(mount.get("mountPath", ""))
        volume = volumes.get(name)
        if volume is None:
            mount.note(f"no volume of the template is called {name}")
            continue
        volume.pass_over("name")
        if path == _SHARED_MEMORY:
            volume.pass_over("emptyDir")  # there is one of memory
            continue
        claim = (
            volume.at("persistentVolumeClaim").text("claimName") if "persistentVolumeClaim" in volume.value else None
        )
        if claim is None or any(path == own or path.startswith(f"{own}/") for own in _OWN_DIRS):
            kind = ", ".join(key for key in volume.value if key != "name")
            volume.pass_over(*volume.value)
            mount.note(f"{path} of {kind}: claims can be mounted, outside of {', '.join(_OWN_DIRS)}")
            continue
        mount.lose("subPath", "the whole claim is mounted")
        read_only = bool(mount.get("readOnly")) or bool(volume.at("persistentVolumeClaim").get("readOnly"))
        found.append({"claim": claim, "mountPath": path.rstrip("/"), **({"readOnly": True} if read_only else {})})
    return found
