"""The command lines of the jobs: the same words on Kubernetes, under SLURM and in the guide."""

import shlex

from cluster.manifests.values import Values

HOME = "/opt/voxmill"
"""Where the image has voxmill's source, with the scripts that `ray job submit` runs."""


def annotate_words(values: Values) -> list[str]:
    """What follows `voxmill annotate`."""
    return [values.recordings, values.dataset, *values.annotate.settings]


def finish_words(values: Values) -> list[str]:
    """What follows `voxmill finish`."""
    return annotate_words(values)


def encode_words(values: Values) -> list[str]:
    """What follows `voxmill encode`."""
    return [values.dataset, "--vae", values.encode.checkpoint, *values.encode.settings]


def train_words(values: Values) -> list[str]:
    """What follows `voxmill train`, without the keys that launch ranks."""
    train = values.train
    paths = [f"init={train.init}", f"datasets.main.path={values.dataset}", f"run.out={train.out}"]
    return [train.recipe, *paths, *train.settings]


def launch_words(values: Values) -> list[str]:
    """Keys that start the ranks with Ray Train, on nodes that may not be there yet. Each rank reserves its share of
    a node's CPUs but one, which is left to the node's own tasks."""
    group = values.workers[values.train.group]
    cpus = max(1, (group.cpus - 1) // group.gpus)
    return [f"num_workers={values.ranks}", "use_gpu=true", f"cpus_per_worker={cpus}", "autoscale=true"]


def script(name: str, words: list[str]) -> str:
    """A job's entry point in the image: `pipelines/annotate` and the words after it, quoted for a shell."""
    return shlex.join(["python", f"{HOME}/{name}.py", *words])


def command(values: Values, name: str, words: list[str]) -> str:
    """`voxmill NAME WORDS` with the values' own way to call voxmill, quoted for a shell."""
    return f"{values.slurm.command} {shlex.join([name, *words])}"
