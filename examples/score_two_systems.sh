#!/usr/bin/env bash
# For the evaluator: two speech systems on the same texts, with intervals, a verdict, and everything in MLflow.
#
#   examples/score_two_systems.sh [OUT]        default: build/example-scores
#
# The two systems are command lines here (Debian: apt-get install -y espeak-ng flite); a checkpoint is `ours=checkpoint:VoxCPM2/`,
# a folder of finished wavs `peer=wavs:peer/`, a server `api=speech:http://127.0.0.1:8000/v1#MODEL/VOICE`.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
out=${1:-build/example-scores}
mkdir -p "$out"
texts=$out/texts.jsonl
cat > "$texts" <<'JSONL'
{"id": "1", "language": "en", "text": "The office is closed today."}
{"id": "2", "language": "en", "text": "Please hold while we try to connect your call."}
{"id": "3", "language": "en", "text": "You have three new messages."}
{"id": "4", "language": "en", "text": "Enter the number of the person you want to reach."}
JSONL

voxmill evaluate "texts:$texts" \
  --system 'espeak=command:espeak-ng -v {language} -w {output} -- {text}' \
  --system 'flite=command:flite -voice slt -t {text} -o {output}' \
  -o "$out"
echo "open $out/report.html, or: mlflow ui --backend-store-uri sqlite:///$out/mlflow.db"
