"""Whatever happens, in whatever order, and wherever the operator is killed: the promises hold."""

import copy

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from darkroom_operator.core.profile import Profile
from darkroom_operator.core.training_job import live
from darkroom_operator.core.training_job.plan import plan
from tests.core.world import INDEX, World

ELASTIC = {"numNodes": None, "elastic": {"minNodes": 2, "maxNodes": 3}, "checkpoint": {"claim": "runs"}}

RULES = st.lists(
    st.sampled_from(
        [
            {"exitCodes": [70, 65], "action": "Fail"},
            {"exitCodes": [1], "action": "RestartForFree"},
            {"reasons": ["Killed", "DataError"], "action": "Restart"},
            {"reasons": ["Disrupted", "JobDeleted"], "action": "Restart"},
            {"reasons": ["StartupDeadlineExceeded"], "action": "Restart"},
            {"reasons": ["AskedToLeave"], "action": "RestartForFree"},
        ]
    ),
    max_size=3,
)
DEADLINE = st.sampled_from([None, 300])
EXIT_CODES = st.sampled_from([0, 0, 1, 65, 70, 75, 78, 137, 143])


class Life(RuleBasedStateMachine):
    """One TrainingJob among crashes, evictions, edits and a dying operator."""

    @initialize(
        nodes=st.sampled_from([{"numNodes": 1}, {"numNodes": 2}, {"numNodes": 3}, ELASTIC, ELASTIC]),
        restarts=st.integers(0, 2),
        rules=RULES,
        deadlines=st.tuples(DEADLINE, DEADLINE),
    )
    def begin(self, nodes, restarts, rules, deadlines):
        restart = {"maxRestarts": restarts, "backoffSeconds": 5, "rules": rules}
        running, startup = deadlines
        self.world = World(**nodes, restart=restart, activeDeadlineSeconds=running, startupDeadlineSeconds=startup)
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

    @rule(image=st.sampled_from(["trainer:1", "trainer:2"]))
    def the_profile_changes(self, image):
        self.world.profiles = {"default": Profile(image=image, price_per_node_hour="3.6")}

    @precondition(lambda self: self.world.jobs)
    @rule(data=st.data())
    def somebody_deletes_a_job(self, data):
        name = data.draw(st.sampled_from(sorted(self.world.jobs)))
        self.world._delete("Job", name, self.world.jobs[name]["metadata"]["uid"])

    @rule(attempt=st.integers(1, 4), step=st.integers(0, 100), saved=st.sampled_from([None, 0, 50]))
    def the_trainer_reports(self, attempt, step, saved):
        self.world.report(attempt, step=step, epoch=step // 10, checkpoint_step=saved, time={"compute": 9.0})

    @rule()
    def the_operator_forgets_the_reports(self):
        self.world.live = None

    @rule()
    def the_trainer_obeys(self):
        for name, job in self.world.jobs.items():
            attempt = int(job["metadata"]["labels"]["darkroom.dev/attempt"])
            if live.reply(self.world.body, attempt, accepted=True).action == "yield":
                for pod in self.world.pods_of(name):
                    if pod["status"]["phase"] == "Running":
                        self.world.end(name, int(pod["metadata"]["labels"][INDEX]), 75)
                        break
                break

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
    def an_elastic_job_runs_within_its_bounds(self):
        """As many pods as there may be, and Running only with as many as it needs."""
        bounds = self.world.body["spec"].get("elastic")
        if not bounds:
            return
        for name in self.world.jobs:
            live = [pod for pod in self.world.pods_of(name) if pod["status"]["phase"] in ("Pending", "Running")]
            assert len(live) <= bounds["maxNodes"]
        status = self.world.status
        if status.get("state") == "Running":
            assert bounds["minNodes"] <= int(status["nodes"].split("/")[0]) <= bounds["maxNodes"]

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
        failed = [
            a
            for a in status.get("attempts", [])
            if a["result"] == "Failed" and "-> RestartForFree;" not in a["message"]
        ]
        spare = 1 if status.get("state") == "Failed" else 0
        assert len(failed) <= status.get("restarts", 0) + spare

    @invariant()
    def a_finished_job_has_every_attempt_on_record(self):
        status = self.world.status
        if status.get("finished"):
            assert [a for a in status.get("attempts", []) if a["result"] == "Running" or "endTime" not in a] == []

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
