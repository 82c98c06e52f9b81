"""The chart's admission policies on a real API server: each is asked as the one whom it limits."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.tuning_sweep_status import TrialRecord
from darkroom_operator.core.profile import Profile, parse_profiles
from darkroom_operator.core.training_job import objects
from darkroom_operator.core.tuning_sweep import ledger
from localcluster import Cluster
from tests.chart.conftest import CHART, ROOT, Helm
from tests.chart.values import PROFILE
from tests.kube import Kube, Refused, eventually

pytestmark = pytest.mark.cluster
SYSTEM = "policies"
OPERATOR = f"system:serviceaccount:{SYSTEM}:darkroom"
SPEC = TrainingJobSpec.model_validate({"container": {"image": "x", "command": ["train"]}, "numNodes": 2})


@pytest.fixture(scope="module")
def kube(cluster: Cluster, helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """The chart with every policy, in force."""
    values = tmp_path_factory.mktemp("values") / "values.yaml"
    policy = {"requireProfileUse": True, "requireCreateJobs": True}
    values.write_text(yaml.safe_dump({"admissionPolicy": policy, "crds": {"keep": False}}))
    release = ("darkroom", CHART, "--namespace", SYSTEM, "--create-namespace", "--values", values)
    helm.run("install", *release, "--take-ownership")
    cluster.kubectl("wait", "--for=condition=Established", *CRDS, "--timeout=30s")
    kube = Kube(cluster.kubeconfig)
    for name in ("team", "other"):
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def in_force() -> bool:
        """The last of them to be compiled refuses."""
        probes = [
            lambda: create(kube, job(), OPERATOR),
            lambda: create(kube, job(hostNetwork=True, ownerReferences=[owner()]), OPERATOR),
            lambda: create(kube, training_job(), "admin-without-profiles"),
            lambda: create(kube, tuning_sweep(), "admin-without-profiles"),
            lambda: create(kube, training_job(), OPERATOR),
            lambda: kube.request("PATCH", f"{kube.path('TrainingJob', 'team', 'kept')}/status", {}, kind=MERGE),
        ]
        return all("policies/" in refusal(probe) or "denied" in refusal(probe) for probe in probes)

    eventually(lambda: create(kube, training_job(name="kept"), dry=False), within=30, what="the CRD is served")
    create(kube, tuning_sweep(name="kept"), dry=False)
    bind(kube, "admin-without-profiles", "edit")
    eventually(in_force, within=30, what="policies in force")
    yield kube
    helm.run("uninstall", "darkroom", "--namespace", SYSTEM)
    cluster.kubectl("delete", "namespace", "team", "other", "--wait=false")
    cluster.kubectl("wait", "--for=delete", *CRDS, "--timeout=60s")


CRDS = ("crd/trainingjobs.darkroom.dev", "crd/tuningsweeps.darkroom.dev")
MERGE = "application/merge-patch+json"


def training_job(name: str = "flowers", profile: str = "default", **spec: Any) -> dict[str, Any]:
    head = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}}
    return head | {"spec": {"container": {"image": "x"}, "profile": profile} | spec}


def tuning_sweep(name: str = "search", profile: str = "default") -> dict[str, Any]:
    head = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TuningSweep", "metadata": {"name": name}}
    spec = {
        "objectives": [{"metric": "val/top1"}],
        "parameters": [{"name": "lr", "env": "LR", "double": {"min": "0", "max": "1"}}],
        "stopping": {"maxTrials": 2},
        "trialTemplate": {"spec": {"container": {"image": "x"}, "profile": profile}},
    }
    return head | {"spec": spec}


def owner(kind: str = "TrainingJob") -> dict[str, Any]:
    return {
        "apiVersion": "darkroom.dev/v1alpha1",
        "kind": kind,
        "name": "kept",
        "uid": "0",
        "controller": True,
    }


def job(*, ownerReferences: list[dict[str, Any]] | None = None, **pod: Any) -> dict[str, Any]:  # noqa: N803
    """What the operator makes of a TrainingJob, with something else about its owner or its pods."""
    made = copy.deepcopy(objects.job(objects.Owner("kept", "team", "0"), SPEC, Profile(), attempt=1))
    made["metadata"]["ownerReferences"] = ownerReferences or []
    container = {key: pod.pop(key) for key in ("securityContext", "env", "envFrom") if key in pod}
    made["spec"]["template"]["spec"] |= pod
    made["spec"]["template"]["spec"]["containers"][0] |= container
    return made


def create(kube: Kube, body: dict[str, Any], user: str = "", *, dry: bool = True, namespace: str = "team") -> Any:
    path = kube.path(body["kind"], namespace) + ("?dryRun=All" if dry else "")
    return kube.request("POST", path, body, user=user)


def refusal(write: Callable[[], Any]) -> str:
    """What the API server says against it; empty if it was carried out."""
    try:
        write()
    except Refused as refused:
        return str(refused)
    return ""


def bind(kube: Kube, user: str, role: str, namespace: str = "team") -> None:
    group = {"apiGroup": "rbac.authorization.k8s.io"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{user}-{role}"},
        "roleRef": {"kind": "ClusterRole", "name": role, **group},
        "subjects": [{"kind": "User", "name": user, **group}],
    }
    kube.request("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings", binding)


def rule(kube: Kube, name: str, **rule: Any) -> None:
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    kube.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", head | {"rules": [rule]})


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"container": {"image": "x", "mounts": [{"claim": "a", "mountPath": "/a"}]}}, id="container"),
        pytest.param({"vision": {"data": {"claim": "a"}, "model": {"architecture": "resnet18"}}}, id="vision"),
    ],
)
def test_training_pods_are_restricted_and_have_no_token(kube: Kube, restricted: str, spec: dict[str, Any]):
    """With a profile that sets everything that a profile may set."""
    (profile,) = parse_profiles(yaml.safe_dump({"full": PROFILE})).values()
    profile = profile.model_copy(update={"service_account_name": None, "priority_class_name": None})
    profile = profile.model_copy(update={"runtime_class_name": None})  # these three would have to exist
    made = objects.job(objects.Owner("kept", restricted, "0"), TrainingJobSpec.model_validate(spec), profile, attempt=1)
    template = made["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}
    eventually(lambda: kube.get("ServiceAccount", restricted, "default"), what="default service account")
    stored = create(kube, pod, namespace=restricted)
    assert [v["name"] for v in stored["spec"]["volumes"] if "projected" in v] == []
    assert "pods is forbidden" in refusal(
        lambda: kube.request("GET", kube.path("Pod", "team"), user="system:anonymous")
    )
    account = "system:serviceaccount:team:default"
    assert "pods is forbidden" in refusal(lambda: kube.request("GET", kube.path("Pod", "team"), user=account))


def test_nobody_but_the_operator_writes_a_status(kube):
    path = f"{kube.path('TrainingJob', 'team', 'kept')}/status"
    lie = {"status": {"state": "Complete"}}
    assert "only the operator writes the status" in refusal(lambda: kube.request("PATCH", path, lie, kind=MERGE))
    assert refusal(lambda: kube.request("PATCH", f"{path}?dryRun=All", lie, kind=MERGE, user=OPERATOR)) == ""


def test_nobody_but_the_operator_writes_the_status_of_a_sweep(kube):
    path = f"{kube.path('TuningSweep', 'team', 'kept')}/status"
    lie = {"status": {"state": "Complete"}}
    assert "only the operator writes the status" in refusal(lambda: kube.request("PATCH", path, lie, kind=MERGE))
    assert refusal(lambda: kube.request("PATCH", f"{path}?dryRun=All", lie, kind=MERGE, user=OPERATOR)) == ""


def test_the_operator_makes_and_changes_trials_and_no_other_training_jobs(kube):
    trial = training_job(name="kept-00000")
    assert "trials of TuningSweeps" in refusal(lambda: create(kube, trial, OPERATOR))
    trial["metadata"]["ownerReferences"] = [owner("TuningSweep")]
    assert refusal(lambda: create(kube, trial, OPERATOR)) == ""
    path = f"{kube.path('TrainingJob', 'team', 'kept')}?dryRun=All"
    change = {"metadata": {"ownerReferences": [owner("TuningSweep")]}, "spec": {"suspend": True}}
    assert "trials of TuningSweeps" in refusal(lambda: kube.request("PATCH", path, change, kind=MERGE, user=OPERATOR))


def test_the_operators_own_objects_pass(kube):
    assert refusal(lambda: create(kube, job(ownerReferences=[owner()]), OPERATOR)) == ""
    service = objects.service(objects.Owner("kept", "team", "0"), SPEC)
    assert refusal(lambda: create(kube, service, OPERATOR)) == ""


def test_the_operators_configmaps_are_those_of_sweeps(kube):
    page = ledger.page("kept", "team", "0", [TrialRecord(number=0, result="Failed")])
    assert refusal(lambda: create(kube, page, OPERATOR)) == ""
    page["metadata"]["ownerReferences"] = [owner("TrainingJob")]
    assert "ConfigMaps of TuningSweeps" in refusal(lambda: create(kube, page, OPERATOR))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"ownerReferences": []}, "children of TrainingJobs", id="no owner"),
        pytest.param(
            {"ownerReferences": [owner() | {"apiVersion": "batch/v1", "kind": "Job"}]},
            "children of TrainingJobs",
            id="another owner",
        ),
        pytest.param({"hostNetwork": True}, "share nothing with their host", id="the host's network"),
        pytest.param({"hostPID": True}, "share nothing with their host", id="the host's processes"),
        pytest.param({"securityContext": {"privileged": True}}, "no privileges", id="privileged"),
        pytest.param({"securityContext": {}}, "no privileges", id="may gain privileges"),
        pytest.param({"automountServiceAccountToken": True}, "no token", id="the account's token"),
        pytest.param({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "mount claims", id="the host's files"),
        pytest.param({"volumes": [{"name": "x", "secret": {"secretName": "x"}}]}, "mount claims", id="a Secret"),
        pytest.param(
            {"volumes": [{"name": "x", "projected": {"sources": [{"secret": {"name": "x"}}]}}]},
            "mount claims",
            id="a Secret by a detour",
        ),
        pytest.param(
            {"volumes": [{"name": "x", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
            "mount claims",
            id="a token for the API server by a detour",
        ),
        pytest.param({"envFrom": [{"secretRef": {"name": "x"}}]}, "no Secret", id="a Secret as environment"),
        pytest.param(
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]},
            "no Secret",
            id="a Secret as a variable",
        ),
    ],
)
def test_the_operators_token_makes_no_other_pods(kube, change, why):
    made = job(**{"ownerReferences": [owner()]} | change)
    made["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = []
    assert why in refusal(lambda: create(kube, made, OPERATOR))


def test_a_token_of_the_operators_own_audience_passes(kube):
    token = {"serviceAccountToken": {"path": "token", "audience": "darkroom.dev/report"}}
    made = job(ownerReferences=[owner()], volumes=[{"name": "report", "projected": {"sources": [token]}}])
    made["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = []
    assert refusal(lambda: create(kube, made, OPERATOR)) == ""


def test_the_operators_token_deletes_nothing_of_others(kube):
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "theirs"}, "spec": {"clusterIP": "None"}}
    create(kube, theirs, dry=False)
    create(kube, training_job(name="precious", ttlSecondsAfterFinished=1), dry=False)
    bind(kube, OPERATOR, "admin")  # more than the chart grants, to see that the policies stand by themselves
    path = kube.path("Service", "team", "theirs")

    def delete(path: str) -> str:
        return refusal(lambda: kube.request("DELETE", f"{path}?dryRun=All", user=OPERATOR))

    assert "children of TrainingJobs" in eventually(lambda: delete(path), what="the right, and the policy's no")
    assert "finished ones" in delete(kube.path("TrainingJob", "team", "kept"))
    assert "finished ones" in delete(kube.path("TrainingJob", "team", "precious"))
    finished = {"status": {"state": "Complete", "finished": True}}
    status = f"{kube.path('TrainingJob', 'team', 'precious')}/status"
    kube.request("PATCH", status, finished, kind=MERGE, user=OPERATOR)
    assert delete(kube.path("TrainingJob", "team", "precious")) == ""


def test_a_profile_is_for_those_who_may_use_it(kube):
    """RBAC decides, as it would about any object: a role with the verb `use` on the profile's name."""
    rule(kube, "use-gpu", apiGroups=["darkroom.dev"], resources=["profiles"], resourceNames=["gpu"], verbs=["use"])
    bind(kube, "ann", "edit")
    bind(kube, "ann", "use-gpu")
    eventually(lambda: refusal(lambda: create(kube, training_job(profile="gpu"), "ann")) == "", what="ann may use gpu")
    no = refusal(lambda: create(kube, training_job(profile="a100"), "ann"))
    assert "ann may not use profile a100 in namespace team" in no
    assert "ann may not use profile default" in refusal(lambda: create(kube, training_job(), "ann"))
    assert refusal(lambda: create(kube, training_job())) == ""  # administrators may do anything
    assert refusal(lambda: create(kube, tuning_sweep(profile="gpu"), "ann")) == ""
    no = refusal(lambda: create(kube, tuning_sweep(profile="a100"), "ann"))
    assert "ann may not use profile a100 in namespace team" in no


def test_who_may_not_create_jobs_creates_no_training_jobs(kube):
    resources = ["trainingjobs", "tuningsweeps", "profiles"]
    rule(kube, "only-training-jobs", apiGroups=["darkroom.dev"], resources=resources, verbs=["create", "use"])
    bind(kube, "bob", "only-training-jobs")

    def told() -> str:
        return refusal(lambda: create(kube, training_job(), "bob"))

    eventually(lambda: "bob may not create Jobs in namespace team" in told(), what="refused for the Jobs")
    assert "bob may not create Jobs in namespace team" in refusal(lambda: create(kube, tuning_sweep(), "bob"))
    rule(kube, "jobs-too", apiGroups=["batch"], resources=["jobs"], verbs=["create"])
    bind(kube, "bob", "jobs-too")
    eventually(lambda: told() == "", what="bob may create both")


def test_the_policies_compile_without_a_warning(cluster: Cluster, kube: Kube):
    """The API server checks the types of every expression against the schemas of what it matches."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"

    def policies() -> list[dict[str, Any]]:
        return [p for p in kube.request("GET", path)["items"] if p["metadata"]["name"].startswith("darkroom-")]

    eventually(
        lambda: all(p.get("status", {}).get("observedGeneration") for p in policies()), within=60, what="types checked"
    )
    assert len(policies()) == 7
    assert [p["status"] for p in policies() if p["status"].get("typeChecking", {}).get("expressionWarnings")] == []


def test_the_manifest_for_kubectl_has_them_too() -> None:
    """The five that are on by default."""
    kinds = [obj["kind"] for obj in yaml.safe_load_all((ROOT / "deploy/install.yaml").read_text())]
    assert kinds.count("ValidatingAdmissionPolicy") == kinds.count("ValidatingAdmissionPolicyBinding") == 5
