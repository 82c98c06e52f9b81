"""Which sample comes when: the same at any world size, each once per epoch, resumable anywhere."""

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom_trainer.data.loader import compute_threads, cpu_limit, make_loader, worker_count
from darkroom_trainer.data.sampler import EvaluationBatches, Plan, TrainingBatches, derive_seed, permutation, share

plans = st.builds(
    lambda samples, batch, micro, epochs, seed: Plan(samples, batch, min(micro, batch), epochs, seed),
    samples=st.integers(1, 60),
    batch=st.integers(1, 40),
    micro=st.integers(1, 40),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 2**31 - 1),
)


def drawn(plan: Plan, world: int, *, start: int = 0) -> list[list]:
    """Samples of each step, gathered from all processes and put in the order of the micro-batches."""
    shares = [share(plan.micro_batches, rank, world) for rank in range(world)]
    ranks = [iter(TrainingBatches(plan, part, start=start, end=plan.steps)) for part in shares]
    steps = []
    for _ in range(start, plan.steps):
        parts = {m: next(ranks[rank]) for rank in range(world) for m in share(plan.micro_batches, rank, world)}
        steps.append(list(chain.from_iterable(parts[m] for m in sorted(parts))))
    assert all(next(rank, None) is None for rank in ranks)
    return steps


@settings(max_examples=60)
@given(plan=plans, world=st.integers(1, 7))
def test_the_world_size_changes_nothing(plan, world):
    assert drawn(plan, world) == drawn(plan, 1)


@settings(max_examples=60)
@given(plan=plans, world=st.integers(1, 5))
def test_every_sample_comes_once_per_epoch(plan, world):
    counts = Counter((ref.epoch, ref.index) for ref in chain.from_iterable(drawn(plan, world)))
    assert set(counts.values()) == {1}
    for epoch in range(plan.epochs):
        assert {index for e, index in counts if e == epoch} == set(range(plan.samples))
    assert counts.total() - plan.epochs * plan.samples < plan.batch  # the last step is filled up


@settings(max_examples=60)
@given(plan=plans, before=st.integers(1, 4), after=st.integers(1, 4), data=st.data())
def test_resuming_on_another_world_goes_on_where_it_stopped(plan, before, after, data):
    step = data.draw(st.integers(0, plan.steps))
    assert drawn(plan, before)[:step] + drawn(plan, after, start=step) == drawn(plan, 1)


@given(plan=plans)
def test_every_batch_is_full_and_its_parts_are_even(plan):
    sizes = [len(plan.refs(0, m)) for m in range(plan.micro_batches)]
    assert sum(sizes) == plan.batch
    assert max(sizes) <= plan.micro_batch
    assert max(sizes) - min(sizes) <= 1


@given(plan=plans)
def test_the_last_step_ends_the_last_epoch(plan):
    assert plan.epochs_done(plan.steps) == plan.epochs
    assert plan.epochs_done(plan.steps - 1) < plan.epochs


def test_epochs_and_seeds_give_different_orders():
    orders = [permutation(50, seed, epoch).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert 0 <= derive_seed("a", 1) < 2**63


@given(samples=st.integers(1, 200), batch=st.integers(1, 33), world=st.integers(1, 6))
def test_evaluation_sees_each_sample_once_without_padding(samples, batch, world):
    ranks = [EvaluationBatches(samples, batch=batch, rank=rank, world=world) for rank in range(world)]
    seen = Counter(ref.index for rank in ranks for refs in rank for ref in refs)
    assert seen == Counter(range(samples))
    assert {rank.rounds for rank in ranks} == {max(len(rank) for rank in ranks)}


# --- The loader ---


class Recorder:
    """A split that remembers what was read."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 40

    def __getitem__(self, ref):
        self.read.append(ref.index)
        return ref


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_begins_at_the_resumed_step_and_keeps_the_order(workers):
    import torch

    plan, images = Plan(40, 8, 4, 1, 0), Recorder()
    batches = TrainingBatches(plan, share(plan.micro_batches, 1, 2), start=3, end=plan.steps)
    loader = make_loader(images, batches, list, workers=workers, device=torch.device("cpu"))
    assert list(loader) == [plan.refs(3, 1), plan.refs(4, 1)]
    if workers == 0:
        assert len(images.read) == 8  # nothing of the steps before


def test_cpu_limit_comes_from_the_pod_then_the_cgroup_then_the_mask(tmp_path):
    mask = cpu_limit({}, cgroup=tmp_path)
    assert mask >= 1
    assert cpu_limit({"DARKROOM_CPU_LIMIT": "1"}, cgroup=tmp_path) == 1
    assert cpu_limit({"DARKROOM_CPU_LIMIT": "100000"}, cgroup=tmp_path) == mask
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_limit({"DARKROOM_CPU_LIMIT": "nonsense"}, cgroup=tmp_path) == mask
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cpu_limit({}, cgroup=tmp_path) == 1
    old = tmp_path / "v1/cpu"
    old.mkdir(parents=True)
    (old / "cpu.cfs_quota_us").write_text("-1\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_limit({}, cgroup=tmp_path / "v1") == mask
    (old / "cpu.cfs_quota_us").write_text("90000\n")
    assert cpu_limit({}, cgroup=tmp_path / "v1") == 1


@pytest.mark.parametrize(
    ("device", "cpus", "local", "workers", "threads"),
    [
        pytest.param("cuda", 16, 2, 7, 1, id="a GPU gets all cores but the one that feeds it"),
        pytest.param("cuda", 1, 1, 1, 1, id="decoding overlaps even on one core"),
        pytest.param("cuda", 128, 1, 16, 112, id="bounded"),
        pytest.param("cpu", 2, 2, 0, 1, id="a small machine has no loader process"),
        pytest.param("cpu", 8, 1, 2, 6, id="a quarter decodes"),
        pytest.param("cpu", 1, 4, 0, 1, id="more processes than cores"),
    ],
)
def test_worker_count(device, cpus, local, workers, threads):
    assert worker_count("Auto", cpus=cpus, local_processes=local, device=device) == workers
    assert compute_threads(cpus=cpus, local_processes=local, workers=workers) == threads
    assert worker_count(3, cpus=cpus, local_processes=local, device=device) == 3
