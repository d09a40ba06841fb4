#!/usr/bin/env bash
# For the data engineer: a folder of recordings becomes a dataset, and then a stricter one without running a model again.
#
#   examples/annotate_a_folder.sh [RECORDINGS [DATASET]]        default: the sample recordings, build/example-dataset
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
recordings=${1:-samples/recordings}
dataset=${2:-build/example-dataset}

# Resumable: run the same command again after a crash.
voxmill annotate "$recordings" "$dataset"

# Why clips were dropped, and what the kept ones are.
python - "$dataset" <<'PYTHON'
import sys
from collections import Counter

import pyarrow.parquet as pq

clips = pq.read_table(f"{sys.argv[1]}/clips.parquet", columns=["language", "duration"])
rejected = pq.read_table(f"{sys.argv[1]}/rejected.parquet", columns=["stage", "reason"])
print(f"{clips.num_rows} clips, {sum(clips['duration'].to_pylist()) / 60:.1f} minutes")
print("languages:", dict(Counter(clips["language"].to_pylist())))
print("rejected:", dict(Counter(zip(rejected["stage"].to_pylist(), rejected["reason"].to_pylist()))))
PYTHON

# A stricter threshold: only selection and what follows it run again.
voxmill annotate "$recordings" "$dataset" select.min_dnsmos_ovr=3.0
echo "open $dataset/report.html"
