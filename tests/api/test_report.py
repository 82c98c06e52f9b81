"""What a trainer says: everything it can say fits, and nothing that a container writes can hurt."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from darkroom_api.report import MAX_MESSAGE_BYTES, TIME_BUCKETS, Artifact, Best, Metric, Reason, TerminationMessage

KUBELET_LIMIT = 4096


def message(**fields: Any) -> TerminationMessage:
    return TerminationMessage(**{"reason": Reason.SOFTWARE_ERROR, "exit_code": 70} | fields)


ASTRAL = "🌷"
"""12 bytes of JSON in one character: the worst there is."""
LARGEST = message(
    exit_code=-(2**31),
    rank=2**53,
    epoch=2**53,
    epochs=2**53,
    step=2**53,
    steps=2**53,
    images_per_second=ASTRAL * 24,
    metrics=[Metric(name=ASTRAL * 63, value=ASTRAL * 24)] * 16,
    best=Best(metric=ASTRAL * 63, value=ASTRAL * 24, epoch=2**53),
    checkpoint=Artifact(path=ASTRAL * 512, sha256=ASTRAL * 64),
    checkpoint_step=2**53,
    resumed_step=2**53,
    model=Artifact(path=ASTRAL * 512, sha256=ASTRAL * 64),
    time={chr(65 + number) * 32: 1.2345678901234567e-300 for number in range(16)},
    error=ASTRAL * 1024,
    log_tail=ASTRAL * 1024,
)

counts = st.integers(0, 2**53)
text = st.text(st.characters(codec="utf-8"), max_size=1100)
artifacts = st.builds(Artifact, path=st.text(max_size=512), sha256=st.none() | st.text(max_size=64))
messages = st.builds(
    message,
    reason=st.sampled_from(Reason),
    exit_code=st.integers(0, 255),
    rank=st.none() | counts,
    epoch=counts,
    step=counts,
    steps=counts,
    images_per_second=st.none() | st.text(max_size=24),
    metrics=st.lists(st.builds(Metric, name=st.text(max_size=63), value=st.text(max_size=24)), max_size=16),
    best=st.none() | st.builds(Best, metric=st.text(max_size=63), value=st.text(max_size=24), epoch=counts),
    checkpoint=st.none() | artifacts,
    model=st.none() | artifacts,
    checkpoint_step=st.none() | counts,
    time=st.dictionaries(st.sampled_from(TIME_BUCKETS), st.floats(0, 1e9)),
    error=st.none() | text,
    log_tail=st.none() | text,
)


def is_cut_of(found: Any, whole: Any) -> bool:
    """Equal, gone, or a beginning."""
    if found in (whole, None, []):
        return True
    return isinstance(found, str) and isinstance(whole, str) and whole.startswith(found)


@settings(max_examples=300)
@given(messages)
def test_any_message_fits_and_comes_back_as_itself_or_a_cut(said: TerminationMessage):
    encoded = said.encode()
    assert len(encoded.encode()) <= MAX_MESSAGE_BYTES
    heard = TerminationMessage.decode(encoded)
    assert heard is not None
    for name in TerminationMessage.model_fields:
        assert is_cut_of(getattr(heard, name), getattr(said, name)), name
    assert (heard.reason, heard.exit_code, heard.step, heard.time) == (
        said.reason,
        said.exit_code,
        said.step,
        said.time,
    )


@settings(max_examples=300)
@given(messages)
def test_what_fits_is_not_cut(said: TerminationMessage):
    if len(json.dumps(said.to_wire(), separators=(",", ":"))) <= MAX_MESSAGE_BYTES:
        assert TerminationMessage.decode(said.encode()) == said


def test_the_largest_message_fits_and_is_no_more_than_kubelet_keeps():
    heard = TerminationMessage.decode(LARGEST.encode())
    assert heard is not None
    assert heard.error == ASTRAL * 80
    assert (heard.time, heard.checkpoint_step) == (LARGEST.time, LARGEST.checkpoint_step)
    assert MAX_MESSAGE_BYTES < KUBELET_LIMIT


@pytest.mark.parametrize(
    ("fields", "gone"),
    [
        pytest.param({"log_tail": "x" * 1000, "error": "e"}, set(), id="all of it"),
        pytest.param({"log_tail": ASTRAL * 400, "error": "e"}, {"log_tail"}, id="the log goes first"),
        pytest.param(
            {"metrics": LARGEST.metrics, "best": Best(metric="a", value="1", epoch=1), "log_tail": "x"},
            {"log_tail", "metrics"},
            id="then the metrics, which the best outlives",
        ),
        pytest.param(
            {"checkpoint": LARGEST.checkpoint, "error": "e"},
            {"checkpoint"},
            id="an artifact's path only when nothing else helps",
        ),
    ],
)
def test_what_is_cut(fields: dict[str, Any], gone: set[str]):
    heard = TerminationMessage.decode(message(**fields).encode())
    assert heard is not None
    assert {name for name in fields if not getattr(heard, name)} == gone


def test_last_words_are_never_refused():
    """An error may be long, and may name a file whose name is not UTF-8."""
    said = message(error="no such file: b\udcffild.png" + "x" * 2000, log_tail="old" + "new" * 1000)
    assert said.error is not None
    assert said.error.startswith("no such file: b?ild.png")
    assert said.log_tail == ("new" * 1000)[-1024:]
    assert TerminationMessage.decode(said.encode()) == said


def test_wire_form():
    said = message(
        rank=1,
        step=10,
        steps=20,
        best=Best(metric="val/top1", value="0.93", epoch=2),
        checkpoint=Artifact(path="checkpoints/10.pt"),
        time={"compute": 1.5},
        error="ValueError: naïve",
    )
    assert said.encode() == (
        '{"version":1,"reason":"SoftwareError","exitCode":70,"rank":1,"epoch":0,"epochs":0,"step":10,"steps":20,"metrics":[],'
        '"best":{"metric":"val/top1","value":"0.93","epoch":2},"checkpoint":{"path":"checkpoints/10.pt"},"time":{"compute":1.5},'
        '"error":"ValueError: na\\u00efve"}'
    )


@pytest.mark.parametrize(
    "written",
    [
        *(None, "", " ", "null", "0", "[]", "{}", '"x"', "Traceback (most recent call last):", "\x00", "\ud800"),
        *(
            "[" * 100_000,
            '{"a":' * 10_000,
            '{"reason":"Completed"}',
            '{"exitCode":0}',
            '{"reason":"Bored","exitCode":0}',
        ),
        LARGEST.encode()[:-1],
        *(
            json.dumps({"reason": "Completed", "exitCode": 0} | wrong)
            for wrong in (
                {"step": -1},
                {"step": 10**30},
                {"steps": float("nan")},
                {"exitCode": "x"},
                {"imagesPerSecond": "9" * 25},
                {"time": {"compute": float("nan")}},
                {"time": {"compute": float("inf")}},
                {"time": {"compute": -1}},
                {"time": {f"b{'c' * number}": 1 for number in range(17)}},
                {"time": {"💥": 1}},
                {"best": {"metric": "m"}},
                {"metrics": [{"name": "m", "value": "1"}] * 17},
                {"checkpoint": {"path": "x" * 513}},
            )
        ),
    ],
    ids=lambda written: repr(written)[:60],
)
def test_garbage_is_none(written: str | None):
    assert TerminationMessage.decode(written) is None


@given(st.text() | st.builds(json.dumps, st.recursive(st.none() | st.floats() | st.text(), st.lists, max_leaves=5)))
def test_any_text_is_a_message_or_none(written: str):
    assert TerminationMessage.decode(written) is None


@pytest.mark.parametrize(
    ("written", "step"),
    [
        pytest.param('{"reason":"Completed","exitCode":0}', 0, id="the least that a container of one's own must write"),
        pytest.param(
            '{"reason":"Completed","exitCode":0,"step":7.0,"rank":null}', 7, id="numbers as another language has them"
        ),
        pytest.param(
            '{"version":2,"reason":"Completed","exitCode":0,"step":7,"mood":"good","best":{"metric":"m","value":"1","epoch":1,"x":2}}',
            7,
            id="fields of a newer trainer",
        ),
    ],
)
def test_foreign_messages(written: str, step: int):
    heard = TerminationMessage.decode(written)
    assert heard is not None
    assert (heard.reason, heard.step) == ("Completed", step)


def test_a_trainer_cannot_misspell_a_field():
    with pytest.raises(ValidationError):
        message(steps_done=1)
