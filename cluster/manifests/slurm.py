"""Scripts for SLURM: an array that labels, and the jobs after it. No Ray spans nodes: each task starts its own."""

from cluster.manifests.commands import annotate_words, command, encode_words, finish_words, train_words
from cluster.manifests.values import Batch, TrainBatch, Values


def slurm_files(values: Values) -> dict[str, str]:
    """(name, text) of each file."""
    return {
        "slurm_submit.sh": _submit(values),
        "slurm_annotate.sbatch": _annotate(values),
        "slurm_finish.sbatch": _finish(values),
        "slurm_encode.sbatch": _encode(values),
        "slurm_train.sbatch": _train(values),
    }


def _submit(values: Values) -> str:
    return f"""#!/bin/bash
# Puts jobs into the queue, each to start when the one before it has ended well:
#
#   bash slurm_submit.sh annotate finish encode train
#
# Without words: annotate finish. Submitted again, they resume.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || set -- annotate finish
# SLURM makes no folder for its logs: a job without it fails and says nothing.
mkdir -p {values.slurm.logs}
after=()
for step in "$@"; do
    job=$(sbatch --parsable "${{after[@]}}" "$here/slurm_$step.sbatch")
    job=${{job%%;*}}
    echo "$step: job $job ${{after[*]}}"
    after=("--dependency=afterok:$job" --kill-on-invalid-dep=yes)
done
"""


def _annotate(values: Values) -> str:
    slurm = values.slurm
    head = _head(
        values,
        "annotate",
        slurm.annotate,
        f"Labels the recordings, each of {slurm.shards} tasks its share; slurm_finish.sbatch does what needs all.",
        [f"--array=0-{slurm.shards - 1}%{slurm.concurrent}"],
        log="%x-%A_%a.log",
    )
    # Not SLURM's own count: some tasks may be submitted again alone (sbatch --array=3,5).
    share = f'--shard "$SLURM_ARRAY_TASK_ID/{slurm.shards}"'
    line = f"{command(values, 'annotate', annotate_words(values))} {share}"
    return head + _run_on_one_node(line)


def _finish(values: Values) -> str:
    text = (
        "Makes the dataset of what slurm_annotate.sbatch has labelled: speakers, descriptions, shards, indexes, report."
    )
    head = _head(values, "finish", values.slurm.finish, text)
    return head + _run_on_one_node(command(values, "finish", finish_words(values)))


def _encode(values: Values) -> str:
    head = _head(values, "encode", values.slurm.encode, "Writes the latents of the finished dataset.")
    return head + _run_on_one_node(command(values, "encode", encode_words(values)))


def _head(
    values: Values, name: str, batch: Batch, text: str, options: list[str] | None = None, *, log: str = "%x-%j.log"
) -> str:
    """Up to the first line that runs: SLURM reads its options only there."""
    slurm = values.slurm
    lines = [f"--job-name=voxmill-{name}", *(options or [])]
    lines += [f"--account={slurm.account}"] if slurm.account else []
    lines += [f"--partition={batch.partition}"] if batch.partition else []
    if isinstance(batch, TrainBatch):
        ranks = max(1, batch.gpus)
        lines += [f"--nodes={batch.nodes}", f"--ntasks-per-node={ranks}"]
        lines += [f"--cpus-per-task={max(1, batch.cpus // ranks)}"]
    else:
        lines += ["--nodes=1", "--ntasks=1", f"--cpus-per-task={batch.cpus}"]
    lines += [f"--mem={batch.memory_gib}G"]
    lines += [f"--gpus-per-node={batch.gpus}"] if batch.gpus else []
    # To the shell alone (B), which passes it on to the driver; ranks get it themselves.
    lines += [
        f"--time={batch.hours}:00:00",
        f"--signal={'' if isinstance(batch, TrainBatch) else 'B:'}TERM@{slurm.warn_seconds}",
    ]
    # A job that runs again writes to the same log.
    lines += ["--requeue", "--open-mode=append", f"--output={slurm.logs}/{log}"]
    options_text = "\n".join(f"#SBATCH {line}" for line in lines)
    setup = "".join(f"{line}\n" for line in slurm.setup)
    return f"#!/bin/bash\n# {text}\n# Submitted by slurm_submit.sh.\n{options_text}\n\n{setup}"


_REQUEUE = """\
# Of an array, the task's own name: the job's number alone would name all of it.
again() {
    scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
}
"""


def _run_on_one_node(line: str) -> str:
    return f"""{_REQUEUE}
# A Ray of this task alone, also where two tasks share a node. The path is short: sockets lie below it.
RAY_TMPDIR=$(mktemp -d /tmp/voxmill.XXXXXX)
export RAY_TMPDIR VOXMILL_SCRATCH="${{SLURM_TMPDIR:-$RAY_TMPDIR}}"
trap 'rm -rf "$RAY_TMPDIR"' EXIT

warned=0
trap 'warned=1; kill -TERM "$pid"' TERM
{line} &
pid=$!
wait "$pid"; status=$?
# A signal ends `wait` before the command has ended.
while kill -0 "$pid" 2>/dev/null; do wait "$pid"; status=$?; done
if [ "$status" = 75 ] || {{ [ "$warned" = 1 ] && [ "$status" != 0 ]; }}; then again; fi
exit "$status"
"""


def _train(values: Values) -> str:
    train = values.slurm.train
    text = (
        f"One stage of the curriculum, {train.nodes * max(1, train.gpus)} ranks. "
        "It resumes from the last checkpoint, with any number of ranks that divides the rows."
    )
    head = _head(values, "train", train, text)
    line = command(values, "train", train_words(values))
    return f"""{head}{_REQUEUE}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
# What torchrun sets, from what srun sets: SIGTERM then reaches the ranks themselves, which save and end with 75. The
# first that ends leaves the others time to save.
rank='export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS; exec "$@"'
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --wait=300 bash -c "$rank" rank \\
    {line}
status=$?
if [ "$status" = 75 ]; then again; fi
exit "$status"
"""
