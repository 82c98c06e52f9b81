"""Whatever happens, in whatever order, and wherever the operator is killed: no trial is doubled, lost or repeated."""

import copy
import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from darkroom_api import names
from darkroom_operator.core.tuning_sweep import ledger
from darkroom_operator.core.tuning_sweep.plan import plan
from tests.core.sweep_world import SweepWorld

ALGORITHM = st.sampled_from(["Random", "TPE", "Grid"])
SPACES = {
    "small": [
        {"name": "width", "env": "WIDTH", "int": {"min": 1, "max": 5}},
        {"name": "lr", "env": "LR", "choice": {"values": ["1"]}},
    ],
    "large": [
        {"name": "lr", "env": "LR", "double": {"min": "0", "max": "1", "step": "0.001"}},
        {"name": "width", "env": "WIDTH", "int": {"min": 1, "max": 64}},
    ],
}


class Search(RuleBasedStateMachine):
    """One sweep among ends in any order, edits, deletions, a cache that lags, and an operator that dies."""

    @initialize(
        name=ALGORITHM, space=st.sampled_from(sorted(SPACES)), parallelism=st.integers(1, 3), pruned=st.booleans()
    )
    def begin(self, name, space, parallelism, pruned):
        self.world = SweepWorld(
            algorithm={"name": name, "seed": 7},
            parameters=SPACES[space],
            parallelism=parallelism,
            stopping={"maxTrials": 8, "maxFailedTrials": 8},
            pruning={"asha": {"minEpochs": 1, "reductionFactor": 2}} if pruned else None,
            trialTemplate={"spec": {"container": {"image": "a"}, "ttlSecondsAfterFinished": 60}},
        )
        self.kept = ledger.KEPT_ROWS, ledger.PAGE_ROWS
        ledger.KEPT_ROWS, ledger.PAGE_ROWS = 3, 2
        self.tried: dict[str, str] = {}
        self.rows: dict[int, dict] = {}

    @rule()
    def reconcile(self):
        self._remember(self.world.look)

    @rule(writes=st.integers(0, 4))
    def be_killed_between_two_writes(self, writes):
        def partly():
            for write in self.world.writes(plan(self.world.facts()))[:writes]:
                write()

        self._remember(partly)
        self.world.restart()

    @rule()
    def decide_twice(self):
        """A retried reconcile decides the same."""
        facts = self.world.facts()
        assert plan(copy.deepcopy(facts)) == plan(facts)

    def _remember(self, act):
        running = len(self.world.running)
        act()
        assert len(self.world.running) <= max(running, self.world.body["spec"]["parallelism"])

    @rule(index=st.integers(0, 5), value=st.floats(0, 1))
    def end_a_trial_well(self, index, value):
        if self.world.running:
            name = self.world.running[index % len(self.world.running)]
            if left := self.world.told_to_leave(name):
                self.world.end(name, "Complete", left.partition(": ")[0], left)
            else:
                self.world.complete(name, value)

    @rule(index=st.integers(0, 5))
    def fail_a_trial(self, index):
        if self.world.running:
            self.world.end(self.world.running[index % len(self.world.running)], "Failed", "SoftwareError", "boom")

    @rule(index=st.integers(0, 5), value=st.floats(0, 1))
    def report(self, index, value):
        if self.world.running:
            name = self.world.running[index % len(self.world.running)]
            epoch = len(self.world.jobs[name]["status"].get("curve", [])) + 1
            self.world.report(name, epoch, value)

    @rule(seconds=st.sampled_from([1, 61]))
    def let_time_pass(self, seconds):
        self.world.wait(seconds)

    @rule(parallelism=st.integers(1, 4))
    def change_parallelism(self, parallelism):
        self.world.edit(parallelism=parallelism)

    @rule(trials=st.integers(4, 12))
    def change_max_trials(self, trials):
        self.world.edit(stopping={"maxTrials": trials, "maxFailedTrials": 12})

    @rule()
    def suspend_or_resume(self):
        self.world.edit(suspend=not self.world.body["spec"].get("suspend", False))
        for name in self.world.running:
            if not self.world.jobs[name]["spec"].get("suspend"):
                self.world.jobs[name]["status"]["state"] = "Running"

    @rule(index=st.integers(0, 5))
    def delete_a_trial_that_is_known(self, index):
        known = self.world.status.get("trials", {}).get("created", 0)
        names_ = [name for name in self.world.running if int(name[-5:]) < known]
        if names_:
            name = names_[index % len(names_)]
            del self.world.jobs[name], self.tried[name]  # what nobody knows any more may be tried again

    @invariant()
    def no_number_is_made_twice(self):
        if hasattr(self, "world"):
            assert len(set(self.world.made)) == len(self.world.made)

    @invariant()
    def no_combination_is_tried_twice(self):
        if hasattr(self, "world"):
            for name in self.world.jobs:
                self.tried[name] = json.dumps(self.world.parameters(name), sort_keys=True)
            assert len(set(self.tried.values())) == len(self.tried)

    @invariant()
    def what_was_recorded_stays(self):
        if hasattr(self, "world"):
            rows = {row["number"]: row for row in self.world.ledger}
            assert {number: rows.get(number) for number in self.rows} == self.rows
            self.rows = rows

    def teardown(self):
        """In the end every trial that was made has its row."""
        if not hasattr(self, "world"):
            return
        try:
            self._run_out()
        finally:
            ledger.KEPT_ROWS, ledger.PAGE_ROWS = self.kept

    def _run_out(self):
        self.world.edit(suspend=False, stopping={"maxTrials": 12, "maxFailedTrials": 12})
        self.world.run_out()
        numbers = sorted(int(name.rsplit("-", 1)[1]) for name in self.world.made)
        assert [row["number"] for row in self.world.ledger] == numbers == list(range(len(numbers)))
        assert self.world.status["trials"]["created"] == len(numbers)
        left = [
            job for job in self.world.jobs.values() if names.ANNOTATION_PARAMETERS not in job["metadata"]["annotations"]
        ]
        assert left == []


Search.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestSearch = Search.TestCase
