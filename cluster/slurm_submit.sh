#!/bin/bash
# Made by `voxmill cluster render` from values.yaml: change that and render again.
# Puts jobs into the queue, each to start when the one before it has ended well:
#
#   bash slurm_submit.sh annotate finish encode train
#
# Without words: annotate finish. Submitted again, they resume.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || set -- annotate finish
# SLURM makes no folder for its logs: a job without it fails and says nothing.
mkdir -p logs
after=()
for step in "$@"; do
    job=$(sbatch --parsable "${after[@]}" "$here/slurm_$step.sbatch")
    job=${job%%;*}
    echo "$step: job $job ${after[*]}"
    after=("--dependency=afterok:$job" --kill-on-invalid-dep=yes)
done
