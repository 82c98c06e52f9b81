"""What is read when somebody scrapes: gauges of the objects, the queues, the streams and the election."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from darkroom_operator.core import series
from darkroom_operator.core.types import Body
from darkroom_operator.shell.metrics import TRAINING_JOBS


class LeaderStatus(Collector):
    """client-go's gauge of an election."""

    def __init__(self, leads: Callable[[], bool]) -> None:
        self._leads = leads

    def collect(self) -> Iterator[Metric]:
        """One gauge."""
        family = GaugeMetricFamily("leader_election_master_status", "1: this process leads", labels=["name"])
        family.add_metric((TRAINING_JOBS,), float(self._leads()))
        yield family


class WorkUnderWay(Collector):
    """What client-go tells of work that has not ended: a stuck worker shows here first."""

    def __init__(self, running: Mapping[str, Callable[[], list[float]]]) -> None:
        self._running = running

    def collect(self) -> Iterator[Metric]:
        """Two gauges."""
        unfinished = GaugeMetricFamily(
            "workqueue_unfinished_work_seconds", "Age of all work under way, summed", labels=["name"]
        )
        longest = GaugeMetricFamily(
            "workqueue_longest_running_processor_seconds", "Age of the oldest work", labels=["name"]
        )
        for queue, running in self._running.items():
            seconds = running()
            unfinished.add_metric((queue,), sum(seconds))
            longest.add_metric((queue,), max(seconds, default=0.0))
        yield from (unfinished, longest)


class JobStates(Collector):
    """TrainingJobs by namespace, profile and state, and what they hold, counted when somebody asks."""

    def __init__(
        self,
        bodies: Callable[[], Iterable[Body]],
        place: Callable[[Body], tuple[str, str]],
        held: Callable[[Body], series.Held],
    ) -> None:
        self._bodies, self._place, self._held = bodies, place, held

    def collect(self) -> Iterator[Metric]:
        """Three gauges."""
        states, nodes, accelerators = Tally[tuple[str, ...]](), Tally[tuple[str, ...]](), Tally[tuple[str, ...]]()
        for body in self._bodies():
            place, held = self._place(body), self._held(body)
            states[*place, series.state_of(body)] += 1
            nodes[place] += held.nodes
            accelerators[place] += held.accelerators
        place_labels = ("namespace", "profile")
        yield _gauge("darkroom_trainingjobs", "TrainingJobs that exist", (*place_labels, "state"), states)
        yield _gauge("darkroom_nodes_in_use", "Training pods that run", place_labels, nodes)
        yield _gauge(
            "darkroom_accelerators_in_use", "Accelerators of training pods that run", place_labels, accelerators
        )


class SweepStates(Collector):
    """TuningSweeps by namespace and state, counted when somebody asks."""

    def __init__(self, bodies: Callable[[], Iterable[Body]]) -> None:
        self._bodies = bodies

    def collect(self) -> Iterator[Metric]:
        """One gauge."""
        tally = Tally[tuple[str, ...]](
            (body["metadata"]["namespace"], series.state_of(body)) for body in self._bodies()
        )
        yield _gauge("darkroom_tuningsweeps", "TuningSweeps that exist", ("namespace", "state"), tally)


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for place, value in values.items():
        family.add_metric(place, value)
    return family


class ObjectSeries(Collector):
    """Series of single objects of one kind: at most `limit` objects, until `keep_seconds` after each has finished."""

    def __init__(
        self,
        bodies: Callable[[], Iterable[Body]],
        families: series.Families,
        *,
        limit: int,
        keep_seconds: float,
        now: Callable[[], datetime],
    ) -> None:
        self._bodies, self._families = bodies, families
        self._limit, self._keep_seconds, self._now = limit, keep_seconds, now

    def collect(self) -> Iterator[Metric]:
        """A gauge of each family, and one that says how many objects have none."""
        chosen = series.chosen(self._bodies(), self._now(), limit=self._limit, keep_seconds=self._keep_seconds)
        for family in self._families.all:
            values = {
                (body["metadata"]["namespace"], body["metadata"]["name"], *labels): value
                for body in chosen.bodies
                for labels, value in family.read(body)
            }
            yield _gauge(family.name, family.text, ("namespace", "name", *family.labels), values)
        yield GaugeMetricFamily(self._families.left_out, "Objects beyond the limit of series", value=chosen.left_out)


class StreamAges(Collector):
    """Seconds since each stream of the API server was last heard."""

    def __init__(self, ages: Callable[[], Mapping[str, float]]) -> None:
        self._ages = ages

    def collect(self) -> Iterator[Metric]:
        """One gauge."""
        family = GaugeMetricFamily(
            "darkroom_watch_last_activity_seconds", "Age of the last sign of life", labels=["resource"]
        )
        for name, age in self._ages().items():
            family.add_metric((name,), age)
        yield family
