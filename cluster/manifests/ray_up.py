"""Files for `ray up`: AWS, and machines of your own."""

from cluster.manifests.values import Values
from cluster.manifests.yaml_text import Commented, Tree, yaml_text


def ray_up_files(values: Values) -> dict[str, str]:
    """(name, text) of each file."""
    return {"ray_aws.yaml": _aws(values), "ray_onprem.yaml": _onprem(values)}


def _run_options(values: Values, shared: bool, environment: dict[str, str]) -> list[Tree]:
    """Of `docker run`, apart from the size of /dev/shm, which Ray sets by the machine's memory.

    Args:
        shared: whether storage.mount is there.
        environment: added to the container's.
    """
    folders = [values.scratch.path, *([values.storage.mount] if shared else [])]
    words = ["--ulimit nofile=65536:65536"]
    words += [f"-v {folder}:{folder}" for folder in folders]
    words += [f"-e {name}={value}" for name, value in environment.items()]
    return [*words]


def _environment(values: Values) -> dict[str, str]:
    return {"VOXMILL_SCRATCH": values.scratch.path} | values.storage.env


def _aws(values: Values) -> str:
    aws = values.aws
    header = (
        "Ray on AWS, which grows and shrinks by need: `ray up ray_aws.yaml`. Region, zone, machine types and the\n"
        "shared file system stand in values.yaml."
    )
    shared = aws.file_system is not None
    commands = [f"sudo install -d -o {aws.ssh_user} {values.scratch.path}"]
    if shared:
        mount = values.storage.mount
        commands.append(f"sudo mkdir -p {mount}")
        commands.append(f"mountpoint -q {mount} || sudo mount -t nfs4 -o nfsvers=4.1,hard {aws.file_system} {mount}")
    nodes: dict[str, Tree] = {
        "head": {
            Commented("resources", "Drivers only: no worker runs beside them."): {"CPU": 0},
            "node_config": _machine(values, values.head.instance),
        }
    }
    for name, group in values.workers.items():
        machine = _machine(values, group.instance)
        if group.spot:
            machine[Commented("InstanceMarketOptions", "A lost node costs its unfinished units.")] = {
                "MarketType": "spot"
            }
        node: dict[str, Tree] = {
            "min_workers": 0,
            "max_workers": group.max_nodes,
            # Found by Ray from the machine's type.
            "resources": {},
            "node_config": machine,
        }
        if group.gpus:
            node["docker"] = {"worker_run_options": ["--gpus all"]}
        nodes[name] = node
    tree: dict[str, Tree] = {
        "cluster_name": "voxmill",
        "max_workers": sum(group.max_nodes for group in values.workers.values()),
        "idle_timeout_minutes": max(1, values.kuberay.idle_seconds // 60),
        "provider": {"type": "aws", "region": aws.region, "availability_zone": aws.zone},
        "auth": {"ssh_user": aws.ssh_user},
        "docker": {
            "image": values.image,
            "container_name": "voxmill",
            "run_options": _run_options(values, shared, _environment(values)),
        },
        "initialization_commands": [*commands],
        "head_node_type": "head",
        "available_node_types": nodes,
    }
    return yaml_text(tree, header)


def _machine(values: Values, instance: str) -> dict[str, Tree]:
    disk: Tree = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": values.aws.volume_gib, "VolumeType": "gp3"}}
    machine: dict[str, Tree] = {"InstanceType": instance, "BlockDeviceMappings": [disk]}
    if values.aws.instance_profile is not None:
        machine["IamInstanceProfile"] = {"Arn": values.aws.instance_profile}
    return machine


def _onprem(values: Values) -> str:
    onprem = values.onprem
    header = (
        "Ray on machines of your own, by SSH: `ray up ray_onprem.yaml`. Every machine needs Docker, the NVIDIA\n"
        f"container toolkit where it has GPUs, {values.scratch.path} on a local disk, and {values.storage.mount} "
        "mounted from shared storage."
    )
    start = "ray start --object-spilling-directory=" + values.scratch.path
    tree: dict[str, Tree] = {
        "cluster_name": "voxmill",
        "provider": {"type": "local", "head_ip": onprem.head, "worker_ips": [*onprem.workers]},
        "auth": {"ssh_user": onprem.ssh_user, "ssh_private_key": onprem.ssh_key},
        "docker": {
            "image": values.image,
            "container_name": "voxmill",
            "pull_before_run": True,
            "run_options": _run_options(values, True, _environment(values)),
            "worker_run_options": ["--gpus all"],
        },
        "head_start_ray_commands": [
            "ray stop",
            f"{start} --head --port=6379 --autoscaling-config=~/ray_bootstrap_config.yaml --dashboard-host=127.0.0.1",
        ],
        "worker_start_ray_commands": ["ray stop", f"{start} --address=$RAY_HEAD_IP:6379"],
    }
    return yaml_text(tree, header)
