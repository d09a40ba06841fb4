"""Kubernetes files for the KubeRay operator: three jobs with clusters of their own, one cluster that stays."""

import re

from cluster.manifests.commands import annotate_words, encode_words, launch_words, script, train_words
from cluster.manifests.values import NAME, SYSTEM_GIB, Values, WorkerGroup
from cluster.manifests.yaml_text import Commented, Tree, yaml_text

RAY_VERSION = "2.60.0"
"""The image's Ray, as constraints.txt pins it."""
GIB = 2**30
CUT_SECONDS = 30
"""Of the time that a pod has to end: what is left, after its work has moved, for its processes to end."""
USER = 1000
"""The image's user, who must be able to write to the volumes."""


def kuberay_files(values: Values) -> dict[str, str]:
    """(name, text) of each file."""
    return {
        "kuberay_setup.yaml": _setup(values),
        "kuberay_annotate.yaml": _annotate(values),
        "kuberay_encode.yaml": _encode(values),
        "kuberay_train.yaml": _train(values),
        "kuberay_cluster.yaml": _cluster_file(values),
    }


def _annotate(values: Values) -> str:
    header = (
        "The annotation job on a cluster of its own, which grows by need and ends with the job:\n"
        "kubectl create -f kuberay_annotate.yaml\n"
        "Created again, it resumes: finished units are skipped."
    )
    entrypoint = script("pipelines/annotate", annotate_words(values))
    return _job(values, "annotate", entrypoint, values.annotate.groups, header)


def _encode(values: Values) -> str:
    header = (
        "Latents of the finished dataset, on a cluster of their own: kubectl create -f kuberay_encode.yaml\n"
        "Created again, it resumes."
    )
    entrypoint = script("pipelines/encode", encode_words(values))
    return _job(values, "encode", entrypoint, values.encode.groups, header)


def _train(values: Values) -> str:
    header = (
        f"One stage of the curriculum on {values.ranks} GPUs: kubectl create -f kuberay_train.yaml\n"
        "It resumes from the last checkpoint in run.out: after a failed rank by Ray Train (max_failures), after a\n"
        "lost cluster by KubeRay (backoffLimit), and after anything else when it is created again, with any number\n"
        "of GPUs that divides the rows."
    )
    entrypoint = script("training/train", [*train_words(values), *launch_words(values)])
    longer = values.kuberay.model_copy(update={"grace_seconds": values.kuberay.train_grace_seconds})
    values = values.model_copy(update={"kuberay": longer})
    return _job(values, "train", entrypoint, {values.train.group: values.train.nodes}, header)


def _cluster_file(values: Values) -> str:
    submit = "ray job submit --address http://127.0.0.1:8265 --working-dir ."
    header = (
        "A Ray cluster that stays, for `ray job submit` from outside:\n\n"
        "  kubectl apply -f kuberay_cluster.yaml\n"
        "  kubectl port-forward service/voxmill-head-svc 8265\n"
    )
    if values.kuberay.auth_token:
        header += (
            "  export RAY_AUTH_MODE=token\n"
            "  export RAY_AUTH_TOKEN=$(kubectl get secret voxmill -o jsonpath='{.data.auth_token}' | base64 -d)\n"
        )
    header += (
        f"  {submit} -- python pipelines/annotate.py {values.recordings} {values.dataset}\n\n"
        "Needs the KubeRay operator (checked against 1.7) and kuberay_setup.yaml."
    )
    tree: dict[str, Tree] = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "voxmill"},
        "spec": _cluster(values, dict.fromkeys(values.workers, 0)),
    }
    return yaml_text(tree, header)


def _job(values: Values, name: str, entrypoint: str, groups: dict[str, int], header: str) -> str:
    kuberay = values.kuberay
    spec: dict[str, Tree] = {
        "entrypoint": entrypoint,
        Commented("backoffLimit", "A job that fails, or whose head is lost, starts again on a new cluster."): (
            kuberay.retries
        ),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": kuberay.keep_seconds,
        "rayClusterSpec": _cluster(values, groups),
    }
    tree: dict[str, Tree] = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        # A name that is made anew each time: a finished RayJob of the same name would be left as it is.
        "metadata": {"generateName": f"voxmill-{name}-"},
        "spec": spec,
    }
    return yaml_text(tree, header)


def _cluster(values: Values, groups: dict[str, int]) -> Tree:
    kuberay = values.kuberay
    spec: dict[str, Tree] = {"rayVersion": RAY_VERSION}
    if kuberay.auth_token:
        spec[
            Commented("authOptions", "Ray 2.52 and later ask for a token, which KubeRay makes and hands to the pods.")
        ] = {"mode": "token"}
    spec |= {
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": kuberay.idle_seconds,
            # KubeRay's default is 512Mi, for a cluster of any size.
            "resources": {
                "requests": {"cpu": "500m", "memory": "1Gi"},
                "limits": {"cpu": "1", "memory": "2Gi"},
            },
            "securityContext": _container_security(),
        },
    }
    if kuberay.redis is not None:
        comment = (
            "The control store's tables outlive the head's pod, and workers wait for its next one. The driver runs on "
            "the head: it is started again (backoffLimit) and resumes."
        )
        password: Tree = {"secretKeyRef": {"name": kuberay.redis_secret, "key": "password"}}
        spec[Commented("gcsFaultToleranceOptions", comment)] = {
            "redisAddress": kuberay.redis,
            "redisPassword": {"valueFrom": password},
        }
    spec["headGroupSpec"] = _head(values)
    spec["workerGroupSpecs"] = [_group(values, name, nodes) for name, nodes in groups.items()]
    return spec


def _head(values: Values) -> Tree:
    head = values.head
    params: dict[str, Tree] = {
        Commented("num-cpus", "Drivers only."): "0",
        "object-store-memory": str(head.object_store_gib * GIB),
        "object-spilling-directory": values.scratch.path,
    }
    ports: list[Tree] = [
        {"name": "gcs-server", "containerPort": 6379},
        {"name": "dashboard", "containerPort": 8265},
        {"name": "client", "containerPort": 10001},
    ]
    container = _container(values, "ray-head", head.cpus, head.memory_gib, 0) | {"ports": ports}
    pod = _pod(values, container, head.object_store_gib, priority="head")
    return {"rayStartParams": params, "template": {"spec": pod}}


def _group(values: Values, name: str, nodes: int) -> Tree:
    group = values.workers[name]
    heap = group.memory_gib - group.object_store_gib - SYSTEM_GIB
    params: dict[str, Tree] = {
        Commented("memory", "Without it KubeRay offers tasks the pod's whole memory, /dev/shm in it."): str(heap * GIB),
        "object-store-memory": str(group.object_store_gib * GIB),
        "object-spilling-directory": values.scratch.path,
    }
    container = _container(values, "ray-worker", group.cpus, group.memory_gib, group.gpus)
    pod = _pod(values, container, group.object_store_gib, priority="worker")
    if group.spot:
        pod["nodeSelector"] = dict(values.kuberay.spot_labels)
    tolerations = _tolerations(values, group)
    if tolerations:
        pod["tolerations"] = tolerations
    return {
        "groupName": name,
        "replicas": nodes,
        "minReplicas": nodes,
        "maxReplicas": group.max_nodes,
        "rayStartParams": params,
        "template": {"spec": pod},
    }


def _tolerations(values: Values, group: WorkerGroup) -> list[Tree]:
    tolerations: list[Tree] = []
    if group.gpus:
        tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    if group.spot:
        for key, value in values.kuberay.spot_labels.items():
            tolerations.append({"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"})
    return tolerations


def _container(values: Values, name: str, cpus: int, memory_gib: int, gpus: int) -> dict[str, Tree]:
    resources: dict[str, Tree] = {"cpu": str(cpus), "memory": f"{memory_gib}Gi"}
    if gpus:
        resources["nvidia.com/gpu"] = str(gpus)
    drain = values.kuberay.grace_seconds - CUT_SECONDS
    env: list[Tree] = [
        {"name": "VOXMILL_SCRATCH", "value": values.scratch.path},
        # `ray start` drains its node for so long when it gets SIGTERM.
        {"name": "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "value": str(drain)},
        # Between SIGTERM and SIGKILL of a job that is stopped; by default three seconds, in which nothing is saved.
        {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": str(drain)},
    ]
    env += [{"name": key, "value": value} for key, value in values.storage.env.items()]
    container: dict[str, Tree] = {"name": name, "image": values.image, "env": env}
    if values.storage.secret is not None:
        container["envFrom"] = [{"secretRef": {"name": values.storage.secret, "optional": True}}]
    # The disk is asked for, too: else a pod lands on a node without so much and is evicted later.
    requests = resources | {"ephemeral-storage": f"{values.scratch.gib}Gi"}
    container["resources"] = {"requests": requests, "limits": resources}
    container["securityContext"] = _container_security()
    if name == "ray-worker":
        container["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sh", "-c", _drain_command(drain)]}}}
    mounts: list[Tree] = [
        {"name": "shared-memory", "mountPath": "/dev/shm"},
        {"name": "scratch", "mountPath": values.scratch.path},
    ]
    if values.storage.claim is not None:
        mounts.insert(0, {"name": "data", "mountPath": values.storage.mount})
    container["volumeMounts"] = mounts
    return container


def _drain_command(seconds: int) -> str:
    """Tells Ray that this node goes and why: work that it loses is not counted as its own failure. It must not hold
    the pod up where the head is gone."""
    reason = "--reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'the pod ends'"
    return f"timeout {CUT_SECONDS // 2} ray drain-node {reason} --deadline-remaining-seconds {seconds} || true"


def _container_security() -> Tree:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _pod(values: Values, container: Tree, shared_gib: int, *, priority: str) -> dict[str, Tree]:
    pod: dict[str, Tree] = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            # Else every pod changes the owner of every file of the volume before it starts.
            "fsGroupChangePolicy": "OnRootMismatch",
        },
        Commented("restartPolicy", "The autoscaler (v2) replaces a pod that ends."): "Never",
        "terminationGracePeriodSeconds": values.kuberay.grace_seconds,
    }
    if values.storage.service_account is not None:
        pod["serviceAccountName"] = values.storage.service_account
    if values.kuberay.priority_class is not None:
        pod["priorityClassName"] = f"{values.kuberay.priority_class}-{priority}"
    pod["containers"] = [container]
    volumes: list[Tree] = [
        # Ray's object store; it counts as memory of the pod.
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shared_gib + 1}Gi"}},
        {"name": "scratch", "emptyDir": {"sizeLimit": f"{values.scratch.gib}Gi"}},
    ]
    if values.storage.claim is not None:
        volumes.insert(0, {"name": "data", "persistentVolumeClaim": {"claimName": values.storage.claim}})
    pod["volumes"] = volumes
    return pod


def _setup(values: Values) -> str:
    """Priority classes and Redis; a comment alone where neither is asked for."""
    kuberay = values.kuberay
    documents: list[dict[str, Tree]] = []
    header = "What the other Kubernetes files name; applied once:\n\n"
    redis = _own_redis(values)
    if redis is not None:
        header += (
            f"  kubectl create secret generic {kuberay.redis_secret} --from-literal=password=$(openssl rand -hex 24)\n"
        )
    header += "  kubectl apply -f kuberay_setup.yaml\n\n"
    if values.storage.claim is not None:
        header += f"The ReadWriteMany claim {values.storage.claim} is yours to make. "
    if values.storage.secret is not None:
        header += (
            f"Keys for object storage, if it is used:\n"
            f"kubectl create secret generic {values.storage.secret} --from-literal=AWS_ACCESS_KEY_ID=... "
            "--from-literal=AWS_SECRET_ACCESS_KEY=..."
        )
    if kuberay.priority_class is not None:
        documents += [_priority_class(f"{kuberay.priority_class}-head", 1_000_000, "Heads of Ray clusters.")]
        documents += [_priority_class(f"{kuberay.priority_class}-worker", 1_000, "Workers of Ray clusters.")]
    if redis is not None:
        documents += _redis(*redis, kuberay.redis_secret, kuberay.redis_image)
    return "---\n".join([yaml_text({}, header), *(yaml_text(document) for document in documents)])


def _priority_class(name: str, value: int, description: str) -> dict[str, Tree]:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": description,
    }


def _own_redis(values: Values) -> tuple[str, int] | None:
    """(name, port) of the Redis of this namespace; None where there is none, or its address is elsewhere."""
    name, _, port = (values.kuberay.redis or "").removeprefix("redis://").partition(":")
    return (name, int(port or 6379)) if re.fullmatch(NAME, name) else None


def _redis(name: str, number: int, secret: str, image: str) -> list[dict[str, Tree]]:
    """A Service and a StatefulSet with a disk: the tables must outlive Redis' own pod, too."""
    labels: dict[str, Tree] = {"app": name}
    container: dict[str, Tree] = {
        "name": "redis",
        "image": image,
        "args": ["redis-server", "--port", str(number), "--appendonly", "yes", "--requirepass", "$(REDIS_PASSWORD)"],
        "env": [
            {"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": {"name": secret, "key": "password"}}},
        ],
        "ports": [{"name": "redis", "containerPort": number}],
        "resources": {
            "requests": {"cpu": "500m", "memory": "1Gi"},
            "limits": {"cpu": "1", "memory": "2Gi"},
        },
        "securityContext": _container_security(),
        "volumeMounts": [{"name": "tables", "mountPath": "/data"}],
    }
    claim: Tree = {
        "metadata": {"name": "tables"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "8Gi"}}},
    }
    pod: dict[str, Tree] = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 999, "runAsGroup": 999, "fsGroup": 999},
        "containers": [container],
    }
    service: dict[str, Tree] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": labels, "ports": [{"name": "redis", "port": number}]},
    }
    stateful_set: dict[str, Tree] = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "serviceName": name,
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            "volumeClaimTemplates": [claim],
        },
    }
    return [service, stateful_set]
