"""The environment by which TensorFlow's workers find each other: TF_CONFIG, as tf.distribute's cluster resolver reads it."""

import json
from collections.abc import Sequence
from typing import Any

from darkroom_api import names
from darkroom_operator.core.training_job.torchrun import INDEX_LABEL


def tensorflow_env(hosts: Sequence[str]) -> list[dict[str, Any]]:
    """The same for every pod of an attempt: kubelet puts the pod's own index in.

    hosts: names that resolve to the nodes, by index. Worker 0 is the chief, as MultiWorkerMirroredStrategy has it.
    """
    workers = [f"{host}:{names.TENSORFLOW_PORT}" for host in hosts]
    cluster = json.dumps({"worker": workers}, separators=(",", ":"))
    config = f'{{"cluster":{cluster},"task":{{"type":"worker","index":$({names.ENV_NODE_INDEX})}}}}'
    index = {"name": names.ENV_NODE_INDEX, "valueFrom": {"fieldRef": {"fieldPath": INDEX_LABEL}}}
    return [index, {"name": names.TF_CONFIG, "value": config}]  # kubelet expands what stands before
