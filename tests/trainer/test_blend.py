"""Which draws are synthetic: the ratio holds, the schedule is kept to, and any process and any resumption agrees on it."""

from collections import Counter
from dataclasses import replace
from itertools import chain, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom_api.v1alpha1.synthetic import Synthetic, SyntheticSchedule
from darkroom_trainer.data.blend import Blend
from darkroom_trainer.data.sampler import Plan
from darkroom_trainer.pace import Pace
from tests.trainer.test_sampler import drawn

SCHEDULES = st.sampled_from(SyntheticSchedule)
RATIOS = st.sampled_from(["0.001", "0.1", "0.25", "0.5", "0.6", "0.9", "1"])


def synthetic(ratio: str, schedule: str) -> Synthetic:
    return Synthetic.model_validate({"source": "Scenes", "ratio": ratio, "schedule": schedule}, strict=False)


def blended(plan: Plan, ratio: str, schedule: str) -> Plan:
    return replace(plan, blend=Blend.of(synthetic(ratio, schedule), draws=plan.steps * plan.batch))


plans = st.builds(
    blended,
    plan=st.builds(
        lambda samples, batch, micro, epochs: Plan(samples, batch, min(micro, batch), epochs, 0),
        samples=st.integers(1, 60),
        batch=st.integers(1, 40),
        micro=st.integers(1, 40),
        epochs=st.integers(1, 5),
    ),
    ratio=RATIOS,
    schedule=SCHEDULES,
)


@settings(max_examples=80)
@given(plan=plans, world=st.integers(1, 5), data=st.data())
def test_any_world_and_any_resumption_sees_the_same_images(plan, world, data):
    step = data.draw(st.integers(0, plan.steps))
    assert drawn(plan, world)[:step] + drawn(plan, 1, start=step) == drawn(plan, 1)


@settings(max_examples=80)
@given(plan=plans)
def test_each_synthetic_image_comes_once_and_each_real_one_once_per_pass(plan):
    refs = list(chain.from_iterable(drawn(plan, 1)))
    numbers = [ref.index for ref in refs if ref.synthetic]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) == pytest.approx(float(plan.blend.curve.ratio) * len(refs), abs=1.001)
    counts = Counter((ref.epoch, ref.index) for ref in refs if not ref.synthetic)
    assert set(counts.values()) <= {1}
    passes, rest = divmod(counts.total(), plan.samples)
    assert Counter(epoch for epoch, _ in counts) == Counter(
        dict.fromkeys(range(passes), plan.samples) | ({passes: rest} if rest else {})
    )


@pytest.mark.parametrize(
    ("schedule", "ratio", "expected"),
    [
        ("Pretrain", "0.25", [10, 0, 0, 0]),
        ("Pretrain", "0.5", [10, 10, 0, 0]),
        ("Mixed", "0.5", [5, 5, 5, 5]),
        ("Mixed", "0.3", [3, 3, 3, 3]),
        ("Anneal", "0.5", [9, 6, 4, 1]),  # 1 to 0
        ("Anneal", "0.25", [4, 3, 2, 1]),  # 1/2 to 0
        ("Anneal", "0.75", [10, 10, 7, 3]),  # 1 for the first half, then to 0
        ("Anneal", "1", [10, 10, 10, 10]),
    ],
)
def test_schedules(schedule, ratio, expected):
    blend = Blend.of(synthetic(ratio, schedule), draws=40)
    bounds = [blend.synthetic(draw) for draw in range(0, 41, 10)]
    assert [after - before for before, after in pairwise(bounds)] == pytest.approx(expected, abs=1)
    assert bounds[-1] == pytest.approx(float(ratio) * 40, abs=1)


@settings(max_examples=80)
@given(ratio=RATIOS, schedule=SCHEDULES, data=st.data())
def test_a_bent_run_keeps_to_the_schedule(ratio, schedule, data):
    """Bent twice, it ends with real images where it would have; no draw is left out, and none is two images."""
    batch, steps = 8, 50
    blend, pace = Blend.of(synthetic(ratio, schedule), draws=batch * steps), Pace(steps, steps)
    for first, last in ((1, 20), (20, 40)):
        step = data.draw(st.integers(first, last))
        before = blend.synthetic(step * batch)
        pace = pace.to(data.draw(st.integers(step + 1, steps)), step=step)
        blend = blend.bent(pace, step=step, batch=batch)
        assert blend.synthetic(step * batch) == before
    counts = [blend.synthetic(draw) for draw in range(step * batch, pace.end * batch + 1)]
    assert {after - before for before, after in pairwise(counts)} <= {0, 1}
    assert Blend.of(synthetic(ratio, schedule), draws=batch * steps).load(blend.dump()) == blend


def test_a_pretraining_that_is_cut_short_leaves_time_for_the_real_images():
    blend = Blend.of(synthetic("0.5", "Pretrain"), draws=1000)
    bent = blend.bent(Pace(100, 100).to(50, step=10), step=10, batch=10)
    assert bent.synthetic(500) == pytest.approx(100 + 400 * 4 / 9, abs=1)  # 40 of the 90 % that were left, in 400 draws
    assert blend.bent(Pace(100, 100).to(80, step=60), step=60, batch=10) is blend  # it was over
    mixed = Blend.of(synthetic("0.5", "Mixed"), draws=1000)
    assert mixed.bent(Pace(100, 100).to(50, step=10), step=10, batch=10) is mixed
