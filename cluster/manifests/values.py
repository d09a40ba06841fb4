"""The values file: what the files of `cluster/` are rendered from. Memory is in GiB (2^30 bytes), CPUs in cores."""

import re

from pydantic import Field, model_validator

from voxmill.core.config import Config

NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
"""What Kubernetes takes as a name."""
SYSTEM_GIB = 2
"""Memory of a node's own processes (raylet, agents), which Ray's tasks do not get."""
_URI = re.compile(r"[a-z][a-z0-9+]*://")


class Storage(Config):
    """Where recordings, datasets and checkpoints lie, and how pods may read them."""

    claim: str | None = "voxmill-data"
    """ReadWriteMany claim that is mounted into every pod; null: none, and all paths are URIs."""
    mount: str = "/data"
    """Where it, or the shared file system of machines outside Kubernetes, is mounted."""
    secret: str | None = "voxmill-storage"
    """Secret whose keys (AWS_ACCESS_KEY_ID ...) are the environment of every pod, where there is one of that name."""
    service_account: str | None = None
    """Service account with access to object storage (IRSA, Workload Identity), made by you; null: KubeRay's own."""
    env: dict[str, str] = {}
    """Further environment of every node, such as AWS_ENDPOINT_URL for MinIO or Ceph."""


class Scratch(Config):
    """Disk of each node: what is spilled from Ray's object store, and voxmill's temporary files."""

    path: str = "/scratch"
    """Its folder: VOXMILL_SCRATCH of every process."""
    gib: int = Field(100, gt=0)
    """Size in GiB, which a node's disk must have free beside the image; a pod that writes more is evicted."""


class Head(Config):
    """The node of the control store and of the jobs' drivers; no task runs on it."""

    cpus: int = Field(4, gt=0)
    """CPUs."""
    memory_gib: int = Field(16, gt=0)
    """Memory, of the control store and the drivers."""
    object_store_gib: int = Field(2, gt=0)
    """Of it, Ray's object store."""
    instance: str = "m6i.2xlarge"
    """Type of the machine on AWS."""


class WorkerGroup(Config):
    """Nodes of one size. Ask for less than the machine has: Kubernetes and its daemons keep some of it."""

    cpus: int = Field(gt=0)
    """CPUs of a node."""
    memory_gib: int = Field(gt=0)
    """Memory of a node."""
    object_store_gib: int = Field(gt=0)
    """Of it, Ray's object store (/dev/shm)."""
    gpus: int = Field(0, ge=0)
    """GPUs of a node."""
    max_nodes: int = Field(gt=0)
    """The cluster does not grow beyond it."""
    spot: bool = False
    """Machines that can be taken away; a lost node costs its unfinished units, which are labelled again."""
    instance: str
    """Type of the machine on AWS."""

    @model_validator(mode="after")
    def _fits(self) -> "WorkerGroup":
        if self.object_store_gib + SYSTEM_GIB >= self.memory_gib:
            raise ValueError(
                f"object_store_gib = {self.object_store_gib} leaves nothing of memory_gib = {self.memory_gib}; "
                "take about a third"
            )
        return self


class AnnotateJob(Config):
    """Recordings to a dataset."""

    groups: dict[str, int] = {"cpu": 1, "spot": 0, "gpu-spot": 1}
    """Worker groups of the job, each with the number of nodes that it starts with and keeps."""
    settings: tuple[str, ...] = ()
    """key=value of the command."""


class EncodeJob(Config):
    """Latents of the dataset."""

    checkpoint: str = "/data/VoxCPM2"
    """Checkpoint folder whose AudioVAE encodes; may be a URI."""
    groups: dict[str, int] = {"gpu-spot": 1}
    """Worker groups of the job, each with the number of nodes that it starts with and keeps."""
    settings: tuple[str, ...] = ()
    """key=value of the command."""


class TrainJob(Config):
    """One stage of the curriculum: as many ranks as its nodes have GPUs."""

    recipe: str = "stage1"
    """A recipe that comes with voxmill, or the path of a YAML file."""
    init: str = "/data/VoxCPM2"
    """Checkpoint folder that training starts from; may be a URI."""
    out: str = "/data/runs/stage1"
    """Folder for its checkpoints; may be a URI."""
    group: str = "gpu"
    """Worker group of the ranks."""
    nodes: int = Field(2, gt=0)
    """Nodes of that group."""
    settings: tuple[str, ...] = ()
    """key=value of the command."""


class KubeRay(Config):
    """Kubernetes with the KubeRay operator (fields checked against 1.7)."""

    redis: str | None = "voxmill-redis:6379"
    """Redis that keeps the control store's tables (GCS fault tolerance); one without a dot is in kuberay_setup.yaml."""
    redis_secret: str = "voxmill-redis"
    """Secret with its password under the key `password`."""
    redis_image: str = "redis:7.2"
    """Image of the Redis in kuberay_setup.yaml."""
    priority_class: str | None = "voxmill"
    """Prefix of the two priority classes in kuberay_setup.yaml, -head and -worker; null: none."""
    auth_token: bool = True
    """Ray takes requests only with the token that KubeRay makes: whoever reaches a Ray without it runs code there."""
    spot_labels: dict[str, str] = {"karpenter.sh/capacity-type": "spot"}
    """Labels of spot nodes, tolerated as taints, too. GKE: cloud.google.com/gke-spot: "true"."""
    grace_seconds: int = Field(120, ge=30)
    """Time of a pod to end, in seconds; Ray moves its work away for all but the last 30. AWS gives 120, GKE 30."""
    train_grace_seconds: int = Field(600, ge=30)
    """The same in kuberay_train.yaml, where a step must end and a checkpoint be written."""
    idle_seconds: int = Field(300, ge=0)
    """A node without work goes after this many seconds."""
    retries: int = Field(3, ge=0)
    """So often a failed job is started again on a new cluster; it resumes."""
    keep_seconds: int = Field(3600, ge=0)
    """The cluster of a finished job goes after this many seconds."""


class Batch(Config):
    """What one SLURM job, or one task of an array, asks for."""

    partition: str | None = None
    """Partition; null: the cluster's default."""
    cpus: int = Field(gt=0)
    """CPUs of a node."""
    memory_gib: int = Field(gt=0)
    """Memory of a node."""
    gpus: int = Field(0, ge=0)
    """GPUs of a node."""
    hours: int = Field(24, gt=0)
    """Time limit; a job that reaches it is put back into the queue and resumes."""


class TrainBatch(Batch):
    """What training asks for: a rank a GPU of its nodes."""

    nodes: int = Field(1, gt=0)
    """Nodes."""


class Slurm(Config):
    """SLURM, without Ray over nodes: an array labels, a job after it does what needs the whole corpus."""

    account: str | None = None
    """Account that is charged."""
    command: str = "voxmill"
    """The command, such as `apptainer exec --nv voxmill.sif voxmill`."""
    setup: tuple[str, ...] = ()
    """Lines of shell before it, such as `module load cuda` or `source .venv/bin/activate`."""
    logs: str = "logs"
    """Folder of the jobs' output."""
    shards: int = Field(64, gt=0)
    """Tasks of the labelling array, each with its share of the recordings; most SLURMs take 1000 (MaxArraySize)."""
    concurrent: int = Field(32, gt=0)
    """Tasks that run at once."""
    warn_seconds: int = Field(300, gt=0)
    """A job is told this many seconds before its time limit."""
    annotate: Batch = Batch(cpus=16, memory_gib=64, gpus=1)
    """One task of the array."""
    finish: Batch = Batch(cpus=32, memory_gib=128)
    """The job after it."""
    encode: Batch = Batch(cpus=16, memory_gib=64, gpus=1)
    """`voxmill encode`."""
    train: TrainBatch = TrainBatch(nodes=2, cpus=64, memory_gib=512, gpus=8)
    """`voxmill train`, a rank a GPU."""


class Aws(Config):
    """`ray up` on AWS."""

    region: str = "us-west-2"
    """Region."""
    zone: str = "us-west-2a"
    """Availability zone."""
    ssh_user: str = "ubuntu"
    """User of the machine image."""
    file_system: str | None = "fs-00000000.efs.us-west-2.amazonaws.com:/"
    """NFS export that is mounted at storage.mount; null: none, and all paths are URIs."""
    instance_profile: str | None = None
    """ARN of the instance profile with access to S3; null: the one that Ray makes."""
    volume_gib: int = Field(400, gt=0)
    """Disk of each machine, image and scratch on it."""


class OnPremises(Config):
    """`ray up` on machines of your own."""

    head: str = "10.0.0.1"
    """Address of the head."""
    workers: tuple[str, ...] = ("10.0.0.2", "10.0.0.3")
    """Addresses of the others."""
    ssh_user: str = "ubuntu"
    """User."""
    ssh_key: str = "~/.ssh/id_ed25519"
    """Key."""


class Values(Config):
    """Everything that a cluster's files depend on."""

    image: str = "registry.example.com/voxmill:0.1.0"
    """Image of every node, built from cluster/Dockerfile."""
    recordings: str = "/data/recordings"
    """IN of annotate; may be a URI."""
    dataset: str = "/data/dataset"
    """OUT of annotate; what encode and train read; may be a URI."""
    annotate: AnnotateJob = AnnotateJob()
    """The annotation job."""
    encode: EncodeJob = EncodeJob()
    """The encoding job."""
    train: TrainJob = TrainJob()
    """The training job."""
    storage: Storage = Storage()
    """Where the data lies."""
    scratch: Scratch = Scratch()
    """Disk of each node."""
    head: Head = Head()
    """The head."""
    workers: dict[str, WorkerGroup] = {
        "cpu": WorkerGroup(cpus=30, memory_gib=112, object_store_gib=32, max_nodes=8, instance="m6i.8xlarge"),
        "spot": WorkerGroup(
            cpus=30, memory_gib=112, object_store_gib=32, max_nodes=64, spot=True, instance="m6i.8xlarge"
        ),
        "gpu": WorkerGroup(
            cpus=180, memory_gib=1800, object_store_gib=400, gpus=8, max_nodes=8, instance="p5.48xlarge"
        ),
        "gpu-spot": WorkerGroup(
            cpus=44, memory_gib=168, object_store_gib=48, gpus=4, max_nodes=16, spot=True, instance="g6.12xlarge"
        ),
    }
    """Worker groups by name."""
    kuberay: KubeRay = KubeRay()
    """Kubernetes."""
    slurm: Slurm = Slurm()
    """SLURM."""
    aws: Aws = Aws()
    """AWS."""
    onprem: OnPremises = OnPremises()
    """Machines of your own."""

    @model_validator(mode="after")
    def _names_what_is_there(self) -> "Values":
        for name in self.workers:
            if not re.fullmatch(NAME, name):
                raise ValueError(f"workers.{name}: a group's name has lower-case letters, digits and -")
        for job, groups in (("annotate", self.annotate.groups), ("encode", self.encode.groups)):
            for name, nodes in groups.items():
                self._check_group(f"{job}.groups", name, nodes)
            if not groups:
                raise ValueError(f"{job}.groups is empty; name one of {', '.join(self.workers)}")
        self._check_group("train.group", self.train.group, self.train.nodes)
        if self.workers[self.train.group].gpus == 0:
            raise ValueError(f"train.group = {self.train.group}: has no GPUs; name a group that has")
        return self

    def _check_group(self, key: str, name: str, nodes: int) -> None:
        if name not in self.workers:
            raise ValueError(f"{key} names {name!r}; the worker groups are {', '.join(self.workers)}")
        if not 0 <= nodes <= self.workers[name].max_nodes:
            raise ValueError(f"{key}: {nodes} nodes of {name}, whose max_nodes is {self.workers[name].max_nodes}")

    @model_validator(mode="after")
    def _paths_are_shared(self) -> "Values":
        if self.storage.claim is not None:
            return self
        paths = {
            "recordings": self.recordings,
            "dataset": self.dataset,
            "encode.checkpoint": self.encode.checkpoint,
            "train.init": self.train.init,
            "train.out": self.train.out,
        }
        for key, path in paths.items():
            if not _URI.match(path):
                raise ValueError(
                    f"storage.claim is null, so that no folder is shared; write {key} = {path!r} as a URI, "
                    "such as s3://bucket/folder"
                )
        return self

    @property
    def ranks(self) -> int:
        """Ranks of training: the GPUs of its nodes."""
        return self.train.nodes * self.workers[self.train.group].gpus
