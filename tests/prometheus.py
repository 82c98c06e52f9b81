"""Prometheus and promtool for tests, and everything that the operator can say to them."""

import json
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import yaml
from prometheus_client.core import GaugeMetricFamily

from darkroom_operator.core import series
from darkroom_operator.shell import collectors
from darkroom_operator.shell.clock import Clock
from darkroom_operator.shell.metrics import Metrics
from localcluster.paths import cache_home
from tests.kube import eventually
from tests.operator_process import free_port

BIN = cache_home() / "bin"


def promtool(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """With `text` as its standard input."""
    command = [BIN / "promtool", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


class Family(NamedTuple):
    """One metric of the operator."""

    name: str
    """As it is listed; queries add _bucket, _sum and _count to a histogram's."""
    type: str
    labels: tuple[str, ...]
    text: str

    @property
    def in_queries(self) -> set[str]:
        """Names as queries have them."""
        endings = ("_bucket", "_sum", "_count") if self.type == "histogram" else ("",)
        return {self.name + ending for ending in endings}


def families() -> list[Family]:
    """All that the operator can say, whether or not it has anything to say."""
    metrics = Metrics()
    for collector in (
        collectors.JobStates(list, metrics.place, lambda _: series.Held(0, 0)),
        collectors.SweepStates(list),
        collectors.StreamAges(dict),
        collectors.WorkUnderWay({}),
        collectors.LeaderStatus(lambda: True),
        collectors.ObjectSeries(list, series.OF_JOB, limit=1, keep_seconds=0, now=Clock().now),
        collectors.ObjectSeries(list, series.OF_SWEEP, limit=1, keep_seconds=0, now=Clock().now),
    ):
        metrics.registry.register(collector)
    found = []
    for collector in metrics.registry._collector_to_names:
        for metric in collector.collect():
            labels = metric._labelnames if isinstance(metric, GaugeMetricFamily) else collector._labelnames
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            found.append(Family(name, metric.type, tuple(labels), metric.documentation))
    return sorted(found)


def names_in_queries() -> set[str]:
    """Of all of them."""
    return {name for family in families() for name in family.in_queries}


class Prometheus:
    """A server that scrapes one port of this machine every second, as the chart's monitors have it done."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port, self.log = free_port(), folder / "prometheus.log"
        self._data, self._config = folder / "data", folder / "prometheus.yaml"
        scrape = {
            "job_name": "darkroom",
            "honor_labels": True,
            "static_configs": [{"targets": [f"127.0.0.1:{target}"], "labels": {"namespace": "darkroom-system"}}],
        }
        interval = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        self._config.write_text(yaml.safe_dump({"global": interval, "scrape_configs": [scrape]}))

    def __enter__(self) -> Self:
        flags = {
            "config.file": self._config,
            "storage.tsdb.path": self._data,
            "web.listen-address": f"127.0.0.1:{self.port}",
        }
        with self.log.open("wb") as sink:
            command = [BIN / "prometheus", *(f"--{name}={value}" for name, value in flags.items())]
            self._process = subprocess.Popen(command, stdout=sink, stderr=sink)
        eventually(self._is_up, what=f"Prometheus; log {self.log}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=20)

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()[-2000:]
        try:
            return bool(self.query("up"))
        except OSError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        """What the API answers; a query that it refuses is an AssertionError with its words."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return json.loads(response.read())["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector: a label set and a pair of time and value for each series."""
        data = self.get("query", query=expression)
        assert data["resultType"] == "vector", f"{expression} is a {data['resultType']}"
        return list(data["result"])

    def query_range(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """The same over time, a point each second."""
        data = self.get("query_range", query=expression, start=str(start), end=str(end), step="1")
        return list(data["result"])

    def label_values(self, label: str, selector: str) -> list[str]:
        """What Grafana asks for label_values(selector, label)."""
        return list(self.get(f"label/{label}/values", **{"match[]": selector}))
