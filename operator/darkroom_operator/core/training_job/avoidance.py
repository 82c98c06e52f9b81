"""Nodes to keep away from: where attempts of a job failed again and again, it may be the node's fault."""

from collections import Counter
from collections.abc import Sequence

from darkroom_api import names
from darkroom_api.v1alpha1.training_job_status import Attempt

_MAY_BE_THE_NODES_FAULT = (names.REASON_SOFTWARE_ERROR, names.REASON_KILLED, names.REASON_OUT_OF_MEMORY)
"""Not bad data, which fails anywhere; not disruptions, of which Kubernetes takes care itself."""
FAILURES = 2
MAX_AVOIDED = 5


def avoided_nodes(attempts: Sequence[Attempt]) -> list[str]:
    """Nodes that hosted the first failure of at least two of these attempts: the worst first, then the latest."""
    blamed = [attempt.node for attempt in reversed(attempts) if attempt.reason in _MAY_BE_THE_NODES_FAULT]
    failures = Counter(node for node in blamed if node)
    return [node for node, count in failures.most_common(MAX_AVOIDED) if count >= FAILURES]
