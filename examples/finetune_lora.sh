#!/usr/bin/env bash
# For the ML engineer: adapters for a checkpoint in the released layout, from an annotated dataset, and speech with them.
#
#   examples/finetune_lora.sh CHECKPOINT DATASET [RUN [RECIPE]]     default: runs/finetune_lora, finetune_lora
#
# `tiny_finetune_lora` as RECIPE is a run of a minute on a CPU, for a checkpoint of the `tiny` size.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
checkpoint=${1:?"a checkpoint folder, such as VoxCPM2/"}
dataset=${2:?"the OUT of a finished voxmill annotate"}
run=${3:-runs/finetune_lora}
recipe=${4:-finetune_lora}

# Latents of every clip, computed once.
voxmill encode "$dataset" --vae "$checkpoint"

# What the run will do and what memory it takes; refuses what cannot work.
voxmill train --check "$recipe" "init=$checkpoint" "datasets.main.path=$dataset" "run.out=$run"

# Resumable. More GPUs: torchrun --nproc-per-node 8 training/train.py ... with the same words.
voxmill train "$recipe" "init=$checkpoint" "datasets.main.path=$dataset" "run.out=$run"

voxmill generate --checkpoint "$checkpoint" --lora "$run/export" --text "Good evening." --max-len 25 --seed 7 -o "$run/evening.wav"
