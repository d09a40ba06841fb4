"""The deployment files: fields that Ray and KubeRay know, commands of this project, one image and one Ray."""

import json
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml

from pipelines.config import AnnotateConfig
from training.curriculum.recipe import load_recipe
from training.launch.launch_config import read_launch
from voxmill.cli.settings import split_settings
from voxmill.core.config import load_config

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
KUBERAY = sorted(CLUSTER.glob("kuberay_*.yaml"))
FIELDS = json.loads((ROOT / "tests" / "data" / "kuberay_fields.json").read_text())
"""Field names and types of KubeRay 1.7.0's RayCluster and RayJob (ray.io/v1), without those that few use."""
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "quantity": (str, int),
    "any": (object,),
}


def wrong(value: Any, known: Any, place: str) -> list[str]:
    """What of a manifest KubeRay would refuse or drop."""
    if isinstance(known, str):
        if known in FIELDS:
            return wrong(value, FIELDS[known], place)
        right = isinstance(value, TYPES[known]) and (known == "boolean" or not isinstance(value, bool))
        return [] if right else [f"{place}: {value!r} is no {known}"]
    if isinstance(known, list):
        if not isinstance(value, list):
            return [f"{place}: not a list"]
        return [line for n, item in enumerate(value) for line in wrong(item, known[0], f"{place}[{n}]")]
    if not isinstance(value, dict):
        return [f"{place}: not a mapping"]
    lines = []
    for key, inner in value.items():
        if key not in known and "*" not in known:
            lines.append(f"{place}.{key}: unknown")
        else:
            lines += wrong(inner, known.get(key, known.get("*")), f"{place}.{key}")
    return lines


def manifest(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def cluster_of(found: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = found["spec"]
    return spec if found["kind"] == "RayCluster" else spec["rayClusterSpec"]


def parse(command: str) -> None:
    """Reads a `python script ...` of ours as the script would, up to looking at the files that it names."""
    python, script, *arguments = shlex.split(command)
    assert python == "python" and (ROOT / script.removeprefix("/opt/voxmill/")).is_file(), command
    if script.endswith("pipelines/annotate.py"):
        recipe_file, overrides = split_settings(arguments[2:])
        load_config(AnnotateConfig, recipe_file, overrides)
    else:
        assert script.endswith("training/train.py")
        _, overrides = split_settings(arguments[1:], recipe="")
        launch, rest = read_launch(overrides)
        recipe = load_recipe(arguments[0], rest)
        assert launch is not None and recipe.rows % launch.num_workers == 0
        assert recipe.run.out.is_absolute()


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_kuberay_knows_every_field(path: Path) -> None:
    found = manifest(path)
    assert found["apiVersion"] == "ray.io/v1" and set(found) == {"apiVersion", "kind", "metadata", "spec"}
    assert wrong(found["spec"], found["kind"], "spec") == []
    assert cluster_of(found)["rayVersion"] == version("ray")


def test_a_wrong_field_is_found() -> None:
    found = manifest(CLUSTER / "kuberay_train.yaml")
    found["spec"]["backofLimit"] = 1
    found["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] = "2"
    lines = wrong(found["spec"], found["kind"], "spec")
    assert sorted(lines) == [
        "spec.backofLimit: unknown",
        "spec.rayClusterSpec.workerGroupSpecs[0].replicas: '2' is no integer",
    ]


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_pods_mount_what_they_name_and_limits_hold_requests(path: Path) -> None:
    cluster = cluster_of(manifest(path))
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            resources = container["resources"]
            assert resources["requests"].keys() == resources["limits"].keys()
            assert container["image"] == "registry.example.com/voxmill:0.1.0"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_jobs_are_commands_that_we_take() -> None:
    jobs = [manifest(path) for path in KUBERAY if manifest(path)["kind"] == "RayJob"]
    assert len(jobs) == 2
    for job in jobs:
        parse(job["spec"]["entrypoint"])


def test_training_asks_for_the_gpus_that_its_cluster_has() -> None:
    spec = manifest(CLUSTER / "kuberay_train.yaml")["spec"]
    launch, _ = read_launch([a for a in shlex.split(spec["entrypoint"]) if "=" in a])
    assert launch is not None
    gpus = cpus = 0
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        requests = group["template"]["spec"]["containers"][0]["resources"]["requests"]
        gpus += group["replicas"] * int(requests.get("nvidia.com/gpu", 0))
        cpus += group["replicas"] * int(requests["cpu"])
    assert launch.num_workers == gpus and launch.num_workers * launch.cpus_per_worker <= cpus


@pytest.mark.parametrize("name", ["ray_onprem", "ray_aws"])
def test_ray_takes_its_cluster_files(name: str) -> None:
    values = manifest(CLUSTER / f"{name}.yaml")
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(values, schema)
    assert values["docker"]["image"] == "registry.example.com/voxmill:0.1.0"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values | {"hed_node_type": "head"}, schema)


def test_ray_completes_the_cluster_file_of_own_machines() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    values = prepare_config(manifest(CLUSTER / "ray_onprem.yaml"))
    validate_config(values)
    assert values["max_workers"] == 2


def test_the_commands_in_the_guide_are_ours() -> None:
    lines = (ROOT / "docs" / "cluster.md").read_text().replace("\\\n", " ").splitlines()
    commands = [line.split(" -- ", 1)[1] for line in lines if "ray job submit" in line and " -- " in line]
    assert len(commands) >= 2
    for line in commands:
        parse(line)


def test_the_image_holds_what_the_manifests_run() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    assert "WORKDIR /opt/voxmill" in text and "constraints.txt" in text
    assert "+cpu" in (ROOT / "constraints.txt").read_text(), "the Dockerfile takes the suffix away"
