"""Whatever happens, in whatever order, and wherever the operator is killed: the promises hold."""

import copy

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from darkroom_operator.core.training_job.plan import plan
from tests.core.world import INDEX, World

EXIT_CODES = st.sampled_from([0, 0, 1, 65, 70, 75, 78, 137, 143])


class Life(RuleBasedStateMachine):
    """One TrainingJob among crashes, evictions, edits and a dying operator."""

    @initialize(nodes=st.integers(1, 3), restarts=st.integers(0, 2), deadline=st.sampled_from([None, 300]))
    def begin(self, nodes, restarts, deadline):
        self.world = World(
            numNodes=nodes, restart={"maxRestarts": restarts, "backoffSeconds": 5}, activeDeadlineSeconds=deadline
        )
        self.terminal = None

    @rule()
    def reconcile(self):
        self.world.look()

    @rule(writes=st.integers(0, 4))
    def be_killed_between_two_writes(self, writes):
        steps = self.world.writes(plan(copy.deepcopy(self.world.facts())))
        for write in steps[:writes]:
            write()

    @rule(seconds=st.sampled_from([1, 5, 30, 400]))
    def let_time_pass(self, seconds):
        self.world.wait(seconds)

    @rule()
    def run_pods(self):
        for name, job in self.world.jobs.items():
            if "deletionTimestamp" not in job["metadata"]:
                pending = [p for p in self.world.pods_of(name) if p["status"]["phase"] == "Pending"]
                indices = [
                    int(p["metadata"]["labels"][INDEX]) for p in pending if "deletionTimestamp" not in p["metadata"]
                ]
                if indices:
                    self.world.run(name, *indices)

    @rule(code=EXIT_CODES, index=st.integers(0, 2))
    def end_a_pod(self, code, index):
        for name in list(self.world.jobs):
            pod = self.world.pods.get(f"{name}-{index}")
            if pod and pod["status"]["phase"] == "Running":
                self.world.end(name, index, code)

    @rule(index=st.integers(0, 2))
    def evict_a_pod(self, index):
        for name in list(self.world.jobs):
            pod = self.world.pods.get(f"{name}-{index}")
            if pod and pod["status"]["phase"] == "Running":
                self.world.disrupt(name, index)

    @rule(code=EXIT_CODES)
    def told_pods_leave(self, code):
        for name in list(self.world.jobs):
            self.world.leave(name, code)

    @rule(suspend=st.booleans())
    def suspend_or_resume(self, suspend):
        self.world.edit(suspend=suspend)

    @precondition(lambda self: self.world.jobs)
    @rule(data=st.data())
    def somebody_deletes_a_job(self, data):
        name = data.draw(st.sampled_from(sorted(self.world.jobs)))
        self.world._delete("Job", name, self.world.jobs[name]["metadata"]["uid"])

    @rule()
    def somebody_deletes_the_services(self):
        self.world.services.clear()

    @invariant()
    def at_most_one_attempt_holds_resources(self):
        live = {
            pod["metadata"]["labels"]["darkroom.dev/attempt"]
            for pod in self.world.pods.values()
            if pod["status"]["phase"] in ("Pending", "Running") and pod["metadata"]["uid"] not in self.world.departed
        }
        assert len(live) <= 1

    @invariant()
    def the_end_is_final(self):
        status = self.world.status
        if self.terminal:
            assert (status["state"], status["completionTime"]) == self.terminal
        elif status.get("finished"):
            self.terminal = (status["state"], status["completionTime"])

    @invariant()
    def restarts_stay_within_the_budget(self):
        status = self.world.status
        assert status.get("restarts", 0) <= self.world.body["spec"]["restart"]["maxRestarts"]
        failed = [a for a in status.get("attempts", []) if a["result"] == "Failed"]
        spare = 1 if status.get("state") == "Failed" else 0
        assert len(failed) <= status.get("restarts", 0) + spare

    @invariant()
    def every_attempt_has_one_job(self):
        made = [name for name in self.world.created if name.startswith("Job/")]
        uids = {a["number"]: a["uid"] for a in self.world.status.get("attempts", [])}
        assert len(uids) == len(self.world.status.get("attempts", []))
        assert len(set(made)) >= len(uids)

    @invariant()
    def exactly_one_word_for_tools(self):
        said = {c["type"]: c["status"] for c in self.world.status.get("conditions", [])}
        if said:
            assert [said["Ready"], said["Reconciling"], said["Stalled"]].count("True") == 1
            assert (said["Complete"], said["Failed"]) != ("True", "True")

    @invariant()
    def times_sum_up(self):
        time = self.world.status.get("time")
        if time:
            buckets = sum(float(v) for k, v in time.items() if k != "total")
            assert abs(buckets - float(time["total"])) < 0.05

    def teardown(self):
        """Left alone, with pods that do as they are told, it comes to rest without a hot loop."""
        if not hasattr(self, "world"):
            return
        self.world.edit(suspend=False)
        for _ in range(12):
            self.told_pods_leave(75)
            self.world.settle()
            if self.world.status.get("finished"):
                return
            self.run_pods()
            self.world.settle()
            for name in list(self.world.jobs):
                for pod in self.world.pods_of(name):
                    if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]:
                        self.world.end(name, int(pod["metadata"]["labels"][INDEX]), 0)
            self.world.wait(700)
        assert self.world.status.get("finished"), self.world.status


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40)
