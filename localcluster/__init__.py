"""A real Kubernetes on one machine, made for tests: no Docker, no image registry, no way out needed."""

from localcluster.cluster import Cluster
from localcluster.errors import ClusterError, StartError

__all__ = ["Cluster", "ClusterError", "StartError"]
