"""Series of single objects: which have them, and what they say."""

from datetime import timedelta
from typing import Any

import pytest

from darkroom_operator.core import series
from darkroom_operator.core.conditions import timestamp
from darkroom_operator.core.profile import Profile
from tests.core.world import START

METRICS = [{"name": "val/top1", "value": "0.91"}, {"name": "val/loss", "value": "0.3"}]
STATUS = {
    "state": "Running",
    "nodes": "2/3",
    "restarts": 1,
    "disruptions": 2,
    "progress": {
        "percent": 40,
        "epoch": 4,
        "step": 400,
        "imagesPerSecond": "812.5",
        "etaSeconds": 90,
        "metrics": METRICS,
    },
    "best": {"metric": "val/top1", "value": "0.93", "epoch": 3},
    "time": {"total": "60", "queued": "20.5", "compute": "30", "saved": "7"},
    "goodput": "0.50",
    "nodeHours": "0.5",
    "gpuHours": "2",
    "cost": "1.25 EUR",
}


def body(name: str = "flowers", *, born: float = 0, ended: float | None = None, **status: Any) -> dict[str, Any]:
    """A stored object, made `born` seconds after START."""
    meta = {"name": name, "namespace": "vision", "uid": f"uid-of-{name}"}
    meta["creationTimestamp"] = timestamp(START + timedelta(seconds=born))
    if ended is not None:
        status |= {"finished": True, "completionTime": timestamp(START + timedelta(seconds=ended))}
    return {"metadata": meta, "spec": {"profile": "gpu"}, "status": status}


def read(families: series.Families, one: Any) -> dict[str, Any]:
    return {family.name: dict(family.read(one)) for family in families.all}


def test_a_job_says_all_of_its_status():
    assert read(series.OF_JOB, body(**STATUS)) == {
        "darkroom_trainingjob_state": {("gpu", "Running"): 1},
        "darkroom_trainingjob_nodes": {(): 2},
        "darkroom_trainingjob_progress_ratio": {(): pytest.approx(0.4)},
        "darkroom_trainingjob_epoch": {(): 4},
        "darkroom_trainingjob_step": {(): 400},
        "darkroom_trainingjob_images_per_second": {(): 812.5},
        "darkroom_trainingjob_eta_seconds": {(): 90},
        "darkroom_trainingjob_metric": {("val/top1",): 0.91, ("val/loss",): 0.3},
        "darkroom_trainingjob_best": {("val/top1",): 0.93},
        "darkroom_trainingjob_restarts": {(): 1},
        "darkroom_trainingjob_disruptions": {(): 2},
        "darkroom_trainingjob_goodput_ratio": {(): 0.5},
        "darkroom_trainingjob_time_seconds": {("queued",): 20.5, ("compute",): 30},
        "darkroom_trainingjob_node_seconds": {(): 1800},
        "darkroom_trainingjob_accelerator_seconds": {(): 7200},
        "darkroom_trainingjob_cost": {("EUR",): 1.25},
    }


def test_a_sweep_says_all_of_its_status():
    counts = {"created": 12, "running": 4, "succeeded": 5, "pruned": 3, "summary": "12 of 40"}
    sweep = body(trials=counts, best={"value": "0.9"}, gpuHours="3", savedGpuHours="1.5")
    sweep["spec"] = {"objectives": [{"metric": "val/top1"}]}
    assert read(series.OF_SWEEP, sweep) == {
        "darkroom_tuningsweep_trials": {("running",): 4, ("succeeded",): 5, ("pruned",): 3},
        "darkroom_tuningsweep_best": {("val/top1",): 0.9},
        "darkroom_tuningsweep_accelerator_seconds": {(): 10800},
        "darkroom_tuningsweep_saved_accelerator_seconds": {(): 5400},
    }


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="none yet"),
        pytest.param({"progress": None, "time": None, "best": None, "cost": None}, id="nulls"),
        pytest.param({"goodput": "much", "gpuHours": {}, "nodes": "some", "progress": []}, id="of another version"),
    ],
)
def test_what_is_not_there_has_no_series(status):
    found = {name for name, samples in read(series.OF_JOB, body(**status)).items() if samples}
    assert found == {"darkroom_trainingjob_state", "darkroom_trainingjob_nodes"}


@pytest.mark.parametrize(
    ("bodies", "names", "left_out"),
    [
        pytest.param([body("b", born=2), body("a", born=1)], ["a", "b"], 0, id="the older one first"),
        pytest.param([body(n, born=i) for i, n in enumerate("dcba")], ["d", "c", "b"], 1, id="a new one takes no place away"),
        pytest.param([body("done", ended=5), body("a"), body("b")], ["a", "b", "done"], 0, id="what runs comes first"),
        pytest.param([body(n, ended=i) for i, n in enumerate("abcd")], ["d", "c", "b"], 1, id="the newest ends"),
        pytest.param([body("old", ended=-100), body("a")], ["a"], 0, id="an old end is not missed"),
    ],
)  # fmt: skip
def test_chosen(bodies, names, left_out):
    chosen = series.chosen(bodies, START + timedelta(seconds=30), limit=3, keep_seconds=60)
    assert ([one["metadata"]["name"] for one in chosen.bodies], chosen.left_out) == (names, left_out)


GPU = Profile(resources={"nvidia.com/gpu": "2"})


@pytest.mark.parametrize(
    ("one", "profile", "expected"),
    [
        pytest.param(body(nodes="2/3"), GPU, series.Held(2, 4), id="the profile's accelerators"),
        pytest.param(body(nodes="0/3"), GPU, series.Held(0, 0), id="none runs"),
        pytest.param(body(), GPU, series.Held(0, 0), id="no status"),
        pytest.param(body(nodes="2/2"), None, series.Held(2, 0), id="a profile that is gone"),
        pytest.param(
            body(nodes="1/1") | {"spec": {"resourcesPerNode": {"nvidia.com/gpu": 8}}},
            GPU,
            series.Held(1, 8),
            id="the job's own",
        ),
    ],
)
def test_held(one, profile, expected):
    assert series.held(one, profile) == expected
