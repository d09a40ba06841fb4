"""Kubernetes files: KubeRay knows every field, and pods can do what their jobs need."""

import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.manifests.kuberay import CUT_SECONDS, GIB, kuberay_files
from cluster.manifests.render import DEFAULT_VALUES
from cluster.manifests.values import Values
from tests.cluster.manifests.crd import schema_errors
from tests.cluster.manifests.job_commands import check_command
from training.curriculum.recipe import load_recipe
from training.launch.launch_config import read_launch
from voxmill.core.config import load_config

ROOT = Path(__file__).resolve().parents[3]
OBJECT_STORAGE = (
    "storage.claim=null",
    "recordings=s3://bucket/recordings",
    "dataset=s3://bucket/dataset",
    "encode.checkpoint=s3://bucket/VoxCPM2",
    "train.init=s3://bucket/VoxCPM2",
    "train.out=s3://bucket/runs/stage1",
    "storage.service_account=voxmill",
    "storage.env={AWS_ENDPOINT_URL: 'https://minio:9000'}",
)
PLAIN = ("kuberay.redis=null", "kuberay.priority_class=null", "kuberay.auth_token=false", "storage.secret=null")
CASES = {"default": (), "object storage": OBJECT_STORAGE, "plain": PLAIN}


def documents(*overrides: str) -> dict[str, dict[str, Any]]:
    """RayJobs and the RayCluster by file name."""
    files = kuberay_files(load_config(Values, DEFAULT_VALUES, list(overrides)))
    del files["kuberay_setup.yaml"]
    return {name: yaml.safe_load(text) for name, text in files.items()}


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]
    return spec if document["kind"] == "RayCluster" else spec["rayClusterSpec"]


def groups_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The head's group and those of the workers."""
    cluster = cluster_of(document)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_kuberay_knows_every_field(overrides: tuple[str, ...]) -> None:
    made = documents(*overrides)
    kinds = sorted(document["kind"] for document in made.values())
    assert kinds == ["RayCluster", "RayJob", "RayJob", "RayJob"]
    for document in made.values():
        assert document["apiVersion"] == "ray.io/v1" and schema_errors(document) == []
        assert cluster_of(document)["rayVersion"] == version("ray")


def test_a_wrong_field_is_found() -> None:
    document = documents()["kuberay_train.yaml"]
    document["spec"]["backofLimit"] = 1
    group = document["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    group["replicas"] = "2"
    group["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["execute"] = {}
    assert len(schema_errors(document)) == 3


def test_ray_start_knows_every_parameter() -> None:
    from ray.scripts.scripts import start

    known = {name for parameter in start.params for name in parameter.opts}
    for document in documents().values():
        for group in groups_of(document):
            assert {f"--{name}" for name in group["rayStartParams"]} <= known
            assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_pods_run_as_the_images_user_who_may_write_to_the_volumes() -> None:
    text = (ROOT / "cluster" / "Dockerfile").read_text()
    assert "--uid 1000" in text and "USER 1000" in text
    for document in documents().values():
        for group in groups_of(document):
            security = group["template"]["spec"]["securityContext"]
            assert security["runAsUser"] == security["fsGroup"] == 1000 and security["runAsNonRoot"]
            # Without it each pod would change the owner of every file of a volume before it starts.
            assert security["fsGroupChangePolicy"] == "OnRootMismatch"


def test_memory_of_a_pod_is_divided_without_a_rest_that_is_counted_twice() -> None:
    for document in documents().values():
        for group in groups_of(document):
            pod = group["template"]["spec"]
            limits = pod["containers"][0]["resources"]["limits"]
            total = int(limits["memory"].removesuffix("Gi")) * GIB
            store = int(group["rayStartParams"]["object-store-memory"])
            shared = next(volume for volume in pod["volumes"] if volume["name"] == "shared-memory")["emptyDir"]
            assert store < int(shared["sizeLimit"].removesuffix("Gi")) * GIB < total
            if "memory" in group["rayStartParams"]:
                assert int(group["rayStartParams"]["memory"]) + store < total


def test_a_pod_has_time_to_end_after_its_work_has_moved() -> None:
    for document in documents().values():
        for group in groups_of(document):
            pod = group["template"]["spec"]
            env = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
            drain = float(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert 0 < drain <= pod["terminationGracePeriodSeconds"] - CUT_SECONDS
            assert pod["restartPolicy"] == "Never"


def test_pods_mount_what_they_name_and_see_the_scratch_disk() -> None:
    for document in documents().values():
        for group in groups_of(document):
            pod = group["template"]["spec"]
            container = pod["containers"][0]
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
            env = {entry["name"]: entry["value"] for entry in container["env"]}
            assert env["VOXMILL_SCRATCH"] == mounts["scratch"]
            assert group["rayStartParams"]["object-spilling-directory"].startswith(mounts["scratch"])
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert all(requests[name] == limit for name, limit in limits.items())


def test_only_spot_groups_want_spot_nodes_and_tolerate_their_taint() -> None:
    values = load_config(Values, DEFAULT_VALUES, ["kuberay.spot_labels={cloud.google.com/gke-spot: 'true'}"])
    cluster = cluster_of(yaml.safe_load(kuberay_files(values)["kuberay_cluster.yaml"]))
    for group in cluster["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        spot = values.workers[group["groupName"]].spot
        assert (pod.get("nodeSelector") == {"cloud.google.com/gke-spot": "true"}) == spot
        keys = {toleration["key"] for toleration in pod.get("tolerations", [])}
        assert ("cloud.google.com/gke-spot" in keys) == spot
        assert ("nvidia.com/gpu" in keys) == ("nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"])


def test_jobs_grow_and_start_again() -> None:
    for name, document in documents().items():
        cluster = cluster_of(document)
        assert cluster["enableInTreeAutoscaling"] is True and cluster["autoscalerOptions"]["version"] == "v2"
        assert cluster["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]["name"]
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] == group["replicas"] <= group["maxReplicas"]
        if document["kind"] == "RayJob":
            assert document["spec"]["backoffLimit"] > 0, name


def test_object_storage_needs_no_volume() -> None:
    for document in documents(*OBJECT_STORAGE).values():
        for group in groups_of(document):
            pod = group["template"]["spec"]
            assert pod["serviceAccountName"] == "voxmill"
            assert all("persistentVolumeClaim" not in volume for volume in pod["volumes"])
            container = pod["containers"][0]
            assert {"name": "AWS_ENDPOINT_URL", "value": "https://minio:9000"} in container["env"]
            assert container["envFrom"] == [{"secretRef": {"name": "voxmill-storage", "optional": True}}]
    assert "s3://bucket/dataset" in documents(*OBJECT_STORAGE)["kuberay_annotate.yaml"]["spec"]["entrypoint"]


def test_what_is_switched_off_is_not_named() -> None:
    values = load_config(Values, DEFAULT_VALUES, list(PLAIN))
    text = "".join(text for name, text in kuberay_files(values).items())
    for word in ("redis", "priorityClassName", "PriorityClass", "authOptions", "envFrom"):
        assert word not in text


def test_what_the_jobs_name_is_in_the_setup_file() -> None:
    setup = [
        document
        for document in yaml.safe_load_all(kuberay_files(Values())["kuberay_setup.yaml"])
        if document is not None
    ]
    names = {(document["kind"], document["metadata"]["name"]) for document in setup}
    for document in documents().values():
        for group in groups_of(document):
            assert ("PriorityClass", group["template"]["spec"]["priorityClassName"]) in names
        redis = cluster_of(document)["gcsFaultToleranceOptions"]["redisAddress"]
        assert ("Service", redis.split(":")[0]) in names and ("StatefulSet", redis.split(":")[0]) in names
    service = next(document for document in setup if document["kind"] == "Service")
    pods = next(document for document in setup if document["kind"] == "StatefulSet")["spec"]["template"]
    assert service["spec"]["selector"] == pods["metadata"]["labels"]
    assert service["spec"]["ports"][0]["port"] == pods["spec"]["containers"][0]["ports"][0]["containerPort"]


def test_the_jobs_are_commands_that_we_take() -> None:
    for overrides in ((), ("annotate.settings=[select.min_seconds=3]", "dataset=/data/my data")):
        for document in documents(*overrides).values():
            if document["kind"] == "RayJob":
                check_command(document["spec"]["entrypoint"])


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_training_asks_for_the_gpus_that_its_cluster_grows_to(nodes: int) -> None:
    spec = documents(f"train.nodes={nodes}")["kuberay_train.yaml"]["spec"]
    words = shlex.split(spec["entrypoint"])[2:]
    launch, overrides = read_launch(words[1:])
    assert launch is not None and launch.autoscale and launch.use_gpu
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    requests = group["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert launch.num_workers == nodes * int(requests["nvidia.com/gpu"]) and group["replicas"] == nodes
    assert launch.num_workers * launch.cpus_per_worker <= nodes * int(requests["cpu"])
    assert load_recipe(words[0], overrides).rows % launch.num_workers == 0


def test_a_redis_that_is_elsewhere_is_not_made() -> None:
    values = load_config(Values, DEFAULT_VALUES, ["kuberay.redis=redis.example.com:6379"])
    files = kuberay_files(values)
    assert "redisAddress: redis.example.com:6379" in files["kuberay_annotate.yaml"]
    assert "StatefulSet" not in files["kuberay_setup.yaml"]
