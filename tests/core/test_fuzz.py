"""Whatever is stored, by whomever: the plan does not crash, comes to rest, and says what is wrong."""

import copy
import string
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom_api import names
from darkroom_api.crd import training_job_crd
from darkroom_operator.core.training_job.observe import stored_status
from darkroom_operator.core.training_job.plan import plan
from tests.core.test_plan import running
from tests.core.world import VISION, World

SCHEMA = training_job_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
LABEL = st.text(string.ascii_letters + string.digits + "-_.", max_size=63)


def of_schema(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a structural schema allows; CEL rules and patterns may still be against them."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(0, 2**31) | st.sampled_from(["1", "100m", "4Gi", "nonsense"])
    match schema.get("type"):
        case "object":
            return _of_object(schema)
        case "array":
            return st.lists(of_schema(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
        case "integer":
            return st.integers(schema.get("minimum", -(2**31)), schema.get("maximum", 2**31 - 1))
        case "boolean":
            return st.booleans()
        case "string":
            return _of_string(schema)
    return JSON


def _of_object(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    fields = schema.get("properties", {})
    required = {name: of_schema(fields[name]) for name in schema.get("required", [])}
    optional = {name: of_schema(field) for name, field in fields.items() if name not in required}
    if extra := schema.get("additionalProperties"):
        return st.dictionaries(TEXT, of_schema(extra), max_size=3)
    return st.fixed_dictionaries(required, optional=optional)


def _of_string(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01T12:00:00.5+02:00"])
    if pattern := schema.get("pattern"):
        return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= schema.get("maxLength", 4096))
    return st.text(max_size=min(16, schema.get("maxLength", 16)), min_size=schema.get("minLength", 0))


SPECS = of_schema(SCHEMA["spec"])
STATUSES = of_schema(SCHEMA["status"])


def settled(**body: Any) -> World:
    """The plan of such an object, until it has nothing more to do."""
    world = World()
    world.body |= copy.deepcopy(body)
    world.settle()
    return world


@settings(max_examples=50)  # a spec has a hundred fields
@given(SPECS)
def test_any_spec_that_the_schema_allows(spec):
    world = settled(spec=spec)
    assert world.status["observedGeneration"] == 1
    assert world.status["state"] in ("Pending", "Stalled", "Suspended", "Failed")
    if world.status["state"] == "Stalled":
        assert world.ready_message


@given(st.none() | st.dictionaries(TEXT | st.sampled_from(list(SCHEMA["spec"]["properties"])), JSON, max_size=4))
def test_a_spec_of_another_schema_is_told_by_field(spec):
    world = settled(spec=spec)
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    assert "spec" in world.ready_message
    assert world.created == []


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A good spec with one field of some depth taken away, added or made into something else."""
    spec = {"vision": VISION, "numNodes": 2, "restart": {"maxRestarts": 1}, "budget": {"maxDuration": "1h"}}
    spec = copy.deepcopy(spec)
    place: Any = spec
    while True:
        key = draw(st.sampled_from([*place, "unheardOf"]))
        if not isinstance(place.get(key), dict) or draw(st.booleans()):
            break
        place = place[key]
    if draw(st.booleans()):
        place.pop(key, None)
    else:
        place[key] = draw(JSON)
    return spec


@given(mutated())
def test_a_spec_that_is_nearly_right(spec):
    world = settled(spec=spec)
    assert world.status["state"] in ("Pending", "Stalled")
    assert bool(world.created) == (world.status["state"] == "Pending")


@settings(max_examples=50)
@given(STATUSES | st.dictionaries(TEXT | st.sampled_from(list(SCHEMA["status"]["properties"])), JSON, max_size=5))
def test_any_status_that_is_stored(status):
    settled(status=status)


@given(
    st.sampled_from(["attempts", "progress", "best", "time", "failure", "outputs", "resolved", "conditions", "nodes"]),
    JSON.filter(lambda value: value is not None),
)
def test_a_job_that_has_ended_stays_so_whatever_else_its_status_says(field, value):
    """A version that is rolled back finds what only the newer one could read."""
    world = running(numNodes=1)
    world.end("flowers-1", 0, 0)
    world.settle()
    made = list(world.created)
    world.body["status"] |= {field: value, "unheardOf": value}
    world.jobs.clear()
    world.pods.clear()
    world.settle()
    assert world.created == made
    assert world.status["finished"] is True


@given(st.dictionaries(st.sampled_from([*SCHEMA["status"]["properties"]]), JSON))
def test_of_a_status_what_can_be_read_is_read(fields):
    read = stored_status(
        {"status": {"restarts": 3, "state": "Running"} | {k: v for k, v in fields.items() if k != "restarts"}}
    )
    assert read.restarts == 3


@given(LABEL.filter(lambda text: not text.isdecimal()), LABEL, st.sampled_from(["Pod", "Job"]))
def test_children_with_forged_labels(attempt, index, kind):
    """Whoever may create pods and Jobs may give them our labels; what is not numbered as we do is none of ours."""
    world = running()
    before = copy.deepcopy(world.status)
    shelf = world.pods if kind == "Pod" else world.jobs
    forged = copy.deepcopy(next(iter(shelf.values())))
    labels = {names.LABEL_ATTEMPT: attempt, "batch.kubernetes.io/job-completion-index": index}
    forged["metadata"] |= {"name": "forged", "uid": "forged"}
    forged["metadata"]["labels"] = forged["metadata"]["labels"] | labels
    forged["metadata"].pop("ownerReferences", None)
    shelf["forged"] = forged
    plan(world.facts())
    world.settle()
    assert world.status == before
