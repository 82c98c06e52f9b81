"""Each child object, whole."""

import json

import pytest

from darkroom_api import names
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_operator.core.profile import NetworkPolicy, Profile, ResourceClaim, parse_profiles
from darkroom_operator.core.training_job.objects import (
    Owner,
    job,
    network_policy,
    processes_per_node,
    run_folder,
    service,
    trainer_config,
)
from darkroom_operator.core.types import Channel

OWNER = Owner(name="flowers", namespace="vision", uid="0123456789abcdef")
LABELS = {
    "app.kubernetes.io/managed-by": "darkroom",
    "darkroom.dev/training-job": "flowers",
    "darkroom.dev/training-job-uid": "0123456789abcdef",
    "darkroom.dev/profile": "default",
}
REFERENCE = {
    "apiVersion": "darkroom.dev/v1alpha1",
    "kind": "TrainingJob",
    "name": "flowers",
    "uid": "0123456789abcdef",
    "controller": True,
    "blockOwnerDeletion": True,
}
PROFILE = Profile(image="trainer:1", resources={"cpu": "2", "memory": "4Gi"})

CLAIMING = Profile(
    image="trainer:1",
    resource_claims=[
        ResourceClaim(name="gpu", resource_claim_template_name="four-gpus", accelerators=4),
        ResourceClaim(name="nic", resource_claim_template_name="fast-nic"),
    ],
)


def spec(**fields) -> TrainingJobSpec:
    return TrainingJobSpec.model_validate_json(json.dumps(fields))


CONTAINER = {"image": "mine:1", "command": ["torchrun"], "args": ["train.py"]}
VISION = {"data": {"claim": "photos", "path": "/train"}, "model": {"architecture": "resnet18"}}


def test_service():
    assert service(OWNER, spec(container=CONTAINER, numNodes=2)) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "darkroom-flowers",
            "namespace": "vision",
            "labels": LABELS,
            "ownerReferences": [REFERENCE],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {
                "darkroom.dev/training-job": "flowers",
                "darkroom.dev/training-job-uid": "0123456789abcdef",
            },
        },
    }


def test_network_policy():
    allowed = NetworkPolicy.model_validate({"egress": [{"cidr": "10.20.0.0/16", "ports": [443]}, {"cidr": "fd00::/8"}]})
    ranks = {
        "podSelector": {
            "matchLabels": {
                "darkroom.dev/training-job": "flowers",
                "darkroom.dev/training-job-uid": "0123456789abcdef",
            }
        }
    }
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "darkroom"}}}
    assert network_policy(OWNER, spec(container=CONTAINER), allowed) == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": "darkroom-flowers",
            "namespace": "vision",
            "labels": LABELS,
            "ownerReferences": [REFERENCE],
        },
        "spec": {
            **ranks,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [ranks]}],
            "egress": [
                {"to": [ranks]},
                {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
                {"to": [operator], "ports": [{"port": "reports", "protocol": "TCP"}]},
                {
                    "to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}],
                    "ports": [{"port": 443, "protocol": "TCP"}],
                },
                {"to": [{"ipBlock": {"cidr": "fd00::/8"}}]},
            ],
        },
    }


def test_a_network_policy_names_addresses():
    with pytest.raises(ValueError, match=r"profiles.default.networkPolicy.egress.0.cidr: .*host bits set"):
        parse_profiles("default: {networkPolicy: {egress: [{cidr: 10.20.0.1/16}]}}")


def test_job():
    made = job(OWNER, spec(container=CONTAINER, numNodes=2), PROFILE, attempt=3)
    env = made["spec"]["template"]["spec"]["containers"][0].pop("env")
    labels = LABELS | {"darkroom.dev/attempt": "3"}
    resources = {"cpu": "2", "memory": "4Gi"}
    assert made == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "flowers-3",
            "namespace": "vision",
            "labels": labels,
            "ownerReferences": [REFERENCE],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": 2,
            "parallelism": 2,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 60,
                    "subdomain": "darkroom-flowers",
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "fsGroup": 65532,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "trainer",
                            "image": "mine:1",
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["torchrun"],
                            "args": ["train.py"],
                            "resources": {"requests": resources, "limits": resources},
                            "terminationMessagePath": "/dev/termination-log",
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                                "readOnlyRootFilesystem": False,
                            },
                            "volumeMounts": [
                                {"name": "shm", "mountPath": "/dev/shm"},
                                {"name": "tmp", "mountPath": "/tmp"},
                                {"name": "runs", "mountPath": "/darkroom/runs"},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "shm", "emptyDir": {"medium": "Memory"}},
                        {"name": "tmp", "emptyDir": {}},
                        {"name": "runs", "emptyDir": {}},
                    ],
                },
            },
        },
    }
    assert _literal(env) == {
        "DARKROOM_JOB": "flowers",
        "DARKROOM_NAMESPACE": "vision",
        "DARKROOM_ATTEMPT": "3",
        "DARKROOM_RUN_DIR": "/darkroom/runs/flowers-01234567",
        "DARKROOM_TERMINATION_LOG": "/dev/termination-log",
        "HOME": "/tmp",
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "1",
        "PET_MAX_RESTARTS": "0",
        "PET_RDZV_ID": "0123456789abcdef-3",
        "PET_RDZV_BACKEND": "static",
        "PET_MASTER_ADDR": "flowers-3-0.darkroom-flowers",
        "PET_MASTER_PORT": "29500",
    }
    assert {item["name"] for item in env if "valueFrom" in item} == {
        "DARKROOM_POD_IP",
        "DARKROOM_CPU_LIMIT",
        "PET_NODE_RANK",
    }


def _literal(env) -> dict[str, str]:
    return {item["name"]: item["value"] for item in env if "value" in item}


def _pod(made):
    return made["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"vision": VISION}, "c10d", id="the built-in launcher passes is_host"),
        pytest.param({"container": CONTAINER}, "static", id="a bare torchrun would guess it"),
        pytest.param({"vision": VISION, "rendezvous": "Static"}, "static", id="static on request"),
        pytest.param({"container": CONTAINER | {"launcher": "None"}}, None, id="no torchrun at all"),
    ],
)
def test_rendezvous(fields, expected):
    env = _literal(_pod(job(OWNER, spec(**fields, numNodes=2), PROFILE, attempt=1))["containers"][0]["env"])
    assert env.get("PET_RDZV_BACKEND") == expected
    assert ("PET_RDZV_ENDPOINT" in env) == (expected == "c10d")


@pytest.mark.parametrize(
    ("fields", "profile", "expected"),
    [
        pytest.param({}, PROFILE, 1, id="no GPU: one process"),
        pytest.param({"resourcesPerNode": {"nvidia.com/gpu": 2}}, PROFILE, 2, id="one per GPU"),
        pytest.param({}, Profile(image="x", resources={"amd.com/gpu": 4}), 4, id="the profile's GPUs"),
        pytest.param(
            {"resourcesPerNode": {"nvidia.com/gpu": 0}},
            Profile(image="x", resources={"nvidia.com/gpu": 4}),
            1,
            id="the job gives the profile's GPUs back",
        ),
        pytest.param(
            {"resourcesPerNode": {"example.com/chip": "8"}},
            Profile(image="x", accelerator_resources=["example.com/chip"]),
            8,
            id="any name that the platform team lists",
        ),
        *(
            pytest.param({"resourcesPerNode": {name: 2}}, PROFILE, 2, id=name)
            for name in (
                "nvidia.com/mig-1g.10gb",
                "nvidia.com/gpu.shared",
                "amd.com/gpu",
                "gpu.intel.com/i915",
                "gpu.intel.com/xe",
                "google.com/tpu",
            )
        ),
        pytest.param({"resourcesPerNode": {"example.com/chip": 8}}, PROFILE, 1, id="a name that nobody listed"),
        pytest.param({"resourcesPerNode": {"rdma/nvidia.com": 1}}, PROFILE, 1, id="a network card"),
        pytest.param({}, CLAIMING, 4, id="a claim says how many it means"),
        pytest.param({"numProcPerNode": 3, "resourcesPerNode": {"nvidia.com/gpu": 2}}, PROFILE, 3, id="said outright"),
    ],
)
def test_processes_per_node(fields, profile, expected):
    assert processes_per_node(spec(vision=VISION, **fields), profile) == expected


def test_one_volume_per_claim_and_read_only_where_nothing_writes():
    weights = {"claim": "photos", "path": "/w.safetensors"}
    vision = VISION | {"model": {"architecture": "resnet18", "weights": weights}}
    pod = _pod(job(OWNER, spec(vision=vision, checkpoint={"claim": "runs", "path": "/a"}), PROFILE, attempt=1))
    claims = [v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [{"claimName": "photos", "readOnly": True}, {"claimName": "runs"}]
    mounts = {m["mountPath"]: m for m in pod["containers"][0]["volumeMounts"]}
    assert mounts[names.DATA_DIR]["readOnly"]
    assert mounts[names.WEIGHTS_DIR]["readOnly"]
    assert "readOnly" not in mounts[names.RUNS_DIR]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]


def test_a_claim_for_features_is_written_beside_the_others():
    weights = {"claim": "photos", "path": "/w.safetensors"}
    transfer = {"policy": "Head", "cacheFeatures": {"claim": "features"}}
    vision = VISION | {"model": {"architecture": "resnet18", "weights": weights}, "transfer": transfer}
    pod = _pod(job(OWNER, spec(vision=vision), PROFILE, attempt=1))
    assert {"name": "claim-1", "persistentVolumeClaim": {"claimName": "features"}} in pod["volumes"]
    assert {"name": "claim-1", "mountPath": names.FEATURES_DIR} in pod["containers"][0]["volumeMounts"]
    assert trainer_config(OWNER, spec(vision=vision), PROFILE).cache_dir == names.FEATURES_DIR
    assert trainer_config(OWNER, spec(vision=VISION), PROFILE).cache_dir is None


def test_a_claim_that_is_also_written_is_mounted_once_and_read_only_where_it_is_read():
    pod = _pod(job(OWNER, spec(vision=VISION, checkpoint={"claim": "photos"}), PROFILE, attempt=1))
    assert [v for v in pod["volumes"] if "persistentVolumeClaim" in v] == [
        {"name": "claim-0", "persistentVolumeClaim": {"claimName": "photos"}}
    ]
    mounts = {m["mountPath"]: m for m in pod["containers"][0]["volumeMounts"]}
    assert mounts[names.DATA_DIR] == {"name": "claim-0", "mountPath": names.DATA_DIR, "readOnly": True}


def test_the_trainer_reads_the_spec_and_where_things_are():
    checkpoint = {"claim": "runs", "everySeconds": 60, "keep": 5}
    config = trainer_config(OWNER, spec(vision=VISION, checkpoint=checkpoint), PROFILE)
    assert config.data_dir == "/darkroom/data"
    assert config.run_dir == "/darkroom/runs/flowers-01234567"
    assert (config.checkpoint.every_seconds, config.checkpoint.keep) == (60, 5)
    assert config.vision.data.path == "/train"


def test_the_run_folder_belongs_to_one_job_object():
    fields = {"vision": VISION, "checkpoint": {"claim": "runs", "path": "/team"}}
    assert run_folder(OWNER, spec(**fields)) == "/team/flowers-01234567"
    other = Owner("flowers", "vision", "fedcba9876543210")
    assert run_folder(other, spec(**fields)) != run_folder(OWNER, spec(**fields))


def test_a_profile_shapes_the_pod():
    profile = parse_profiles(
        """
        default:
          image: trainer:1
          nodeSelector: {pool: gpu}
          tolerations: [{key: gpu, operator: Exists}]
          priorityClassName: low
          imagePullSecrets: [registry]
          sharedMemory: 8Gi
          env: [{name: NCCL_DEBUG, value: WARN}]
          annotations: {example.com/team: vision}
          securityContext: {runAsUser: 1000, fsGroup: 2000}
        """
    )["default"]
    made = job(OWNER, spec(vision=VISION), profile, attempt=1)
    pod = _pod(made)
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert pod["priorityClassName"] == "low"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["volumes"][0] == {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}
    assert {"name": "NCCL_DEBUG", "value": "WARN"} in pod["containers"][0]["env"]
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["fsGroup"]) == (1000, 2000)
    assert made["spec"]["template"]["metadata"]["annotations"] == {"example.com/team": "vision"}


def test_devices_by_claim_are_given_to_the_training_container():
    pod = _pod(job(OWNER, spec(vision=VISION), CLAIMING, attempt=1))
    assert pod["resourceClaims"] == [
        {"name": "gpu", "resourceClaimTemplateName": "four-gpus"},
        {"name": "nic", "resourceClaimTemplateName": "fast-nic"},
    ]
    assert pod["containers"][0]["resources"]["claims"] == [{"name": "gpu"}, {"name": "nic"}]


@pytest.mark.parametrize(
    ("scheduling", "expected"),
    [
        pytest.param(None, "low", id="the profile's"),
        pytest.param({}, "low", id="nothing asked for"),
        pytest.param({"priorityClassName": "high"}, "high", id="the job's"),
    ],
)
def test_priority(scheduling, expected):
    profile = Profile(image="x", priority_class_name="low", priority_classes=["high"])
    made = job(
        OWNER, spec(vision=VISION, **({"scheduling": scheduling} if scheduling is not None else {})), profile, attempt=1
    )
    assert _pod(made)["priorityClassName"] == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("default: {imag: x}", "profiles.default.imag", id="unknown field"),
        pytest.param("default: {maxNodes: 0}", "profiles.default.maxNodes", id="out of range"),
        pytest.param(
            "default: {resources: {nvidia.com/gpu: 500m}}", "nvidia.com/gpu in whole numbers", id="half a GPU"
        ),
        pytest.param("default: {acceleratorResources: [cpu]}", "acceleratorResources", id="no device"),
        pytest.param("default: {resourceClaims: [{name: gpu}]}", "resourceClaimTemplateName", id="a claim of nothing"),
        pytest.param("{", "not YAML", id="broken"),
        pytest.param("Default: {}", "profiles.Default", id="bad name"),
        pytest.param("default: {securityContext: {runAsUser: 0}}", "runAsUser", id="root"),
    ],
)
def test_a_wrong_profile_is_named(text, words):
    with pytest.raises(ValueError, match=words):
        parse_profiles(text)


def test_a_pod_with_a_channel_gets_an_address_an_authority_and_a_token_that_opens_nothing_else():
    there = Channel("darkroom.darkroom-system.svc:8443", "PEM")
    with_it = job(OWNER, spec(container=CONTAINER), PROFILE, attempt=3, channel=there)
    without = job(OWNER, spec(container=CONTAINER), PROFILE, attempt=3)
    pod, plain = (made["spec"]["template"]["spec"] for made in (with_it, without))
    assert pod["automountServiceAccountToken"] is False
    assert pod["volumes"][len(plain["volumes"]) :] == [
        {
            "name": "report",
            "projected": {
                "sources": [
                    {
                        "serviceAccountToken": {
                            "path": "token",
                            "audience": "darkroom.dev/report",
                            "expirationSeconds": 3600,
                        }
                    }
                ]
            },
        }
    ]
    container, bare = pod["containers"][0], plain["containers"][0]
    assert container["volumeMounts"][len(bare["volumeMounts"]) :] == [
        {"name": "report", "mountPath": "/var/run/secrets/darkroom.dev", "readOnly": True}
    ]
    url = "https://darkroom.darkroom-system.svc:8443/v1/training-jobs/0123456789abcdef/attempts/3/reports"
    assert container["env"][len(bare["env"]) :] == [
        {"name": "DARKROOM_REPORT_URL", "value": url},
        {"name": "DARKROOM_REPORT_CA", "value": "PEM"},
        {"name": "DARKROOM_REPORT_TOKEN_FILE", "value": "/var/run/secrets/darkroom.dev/token"},
    ]
