"""Files for `ray up`: Ray's own schema takes them, and Ray itself completes what can be completed without a cloud."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml

from cluster.manifests.ray_up import ray_up_files
from cluster.manifests.render import DEFAULT_VALUES
from cluster.manifests.values import Values
from voxmill.core.config import load_config

SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
OBJECT_STORAGE = ("aws.file_system=null", "aws.instance_profile=arn:aws:iam::1:instance-profile/voxmill")


def document(name: str, *overrides: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(ray_up_files(load_config(Values, DEFAULT_VALUES, list(overrides)))[name])
    return found


@pytest.mark.parametrize("overrides", [(), OBJECT_STORAGE])
@pytest.mark.parametrize("name", ["ray_onprem.yaml", "ray_aws.yaml"])
def test_ray_takes_its_cluster_files(name: str, overrides: tuple[str, ...]) -> None:
    values = document(name, *overrides)
    jsonschema.validate(values, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values | {"hed_node_type": "head"}, SCHEMA)


def test_ray_completes_the_file_of_own_machines() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    values = prepare_config(document("ray_onprem.yaml"))
    validate_config(values)
    assert values["max_workers"] == 2


def test_aws_has_the_worker_groups_and_a_head_for_drivers() -> None:
    values = document("ray_aws.yaml")
    nodes = values["available_node_types"]
    assert set(nodes) == {"head", *Values().workers}
    assert nodes["head"]["resources"] == {"CPU": 0}
    for name, group in Values().workers.items():
        assert nodes[name]["max_workers"] == group.max_nodes
        assert ("InstanceMarketOptions" in nodes[name]["node_config"]) == group.spot
        assert ("docker" in nodes[name]) == bool(group.gpus)
    assert values["max_workers"] == sum(group.max_nodes for group in Values().workers.values())


def test_object_storage_needs_no_shared_file_system() -> None:
    values = document("ray_aws.yaml", *OBJECT_STORAGE)
    assert all("/data" not in option for option in values["docker"]["run_options"])
    assert all("nfs" not in command for command in values["initialization_commands"])
    head = values["available_node_types"]["head"]["node_config"]
    assert head["IamInstanceProfile"] == {"Arn": "arn:aws:iam::1:instance-profile/voxmill"}
