"""Which TrainingJobs the operator works on."""

from typing import Any

from darkroom_operator.shell.store import Store

KEY = ("vision", "flowers")


def body(version: int, manager: str | None = None, uid: str = "a") -> dict[str, Any]:
    meta = {"namespace": "vision", "name": "flowers", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": meta, "spec": {"managedBy": manager} if manager else {}}


def test_another_controllers_job_wakes_nobody():
    woken: list[Any] = []
    store = Store(woken.append)
    store.put(body(1, "example.com/other"))
    store.replace([body(2, "example.com/other")], "2", None)
    store.touch_all()
    store.remove(KEY, "a")
    assert (store.bodies(), woken) == ([], [])


def test_a_namesake_of_another_controller_takes_ours_away():
    """Its deletion was missed: what is known of ours is old."""
    woken: list[Any] = []
    store = Store(woken.append)
    store.put(body(1))
    store.put(body(2, "example.com/other", uid="b"))
    assert (store.get(KEY), woken) == (None, [KEY, KEY])


def test_an_older_body_changes_nothing():
    store = Store(lambda _: None)
    store.put(body(2))
    store.put(body(1, "example.com/other"))
    assert store.get(KEY) == body(2)
