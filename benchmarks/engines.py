"""Two real engines on 60 texts in two languages, cloned voices' place taken by the sample voices: docs/evaluation.md.

    python benchmarks/engines.py OUT [key=value ...]

espeak-ng speaks both languages; flite speaks the English texts and festival the Italian ones, as one system. None of
them clones, so SIM is what strangers have. Debian: apt-get install -y espeak-ng flite festival festvox-italp16k
"""

import shutil
import sys
from pathlib import Path

if __name__ == "__main__":
    # A script run by path has its own folder first on sys.path; the packages lie one level up.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from voxmill.cli.app import run

ROOT = Path(__file__).resolve().parent.parent
ESPEAK = "espeak-ng=command:espeak-ng -v {language} -w {output} -- {text}"
FESTIVAL = 'iconv -f utf-8 -t iso-8859-1//TRANSLIT | text2wave -eval "(voice_lp_diphone)" -o "$2"'
OTHER = (
    "flite+festival=command:sh -c '"
    'case "$3" in en) flite -voice slt -o "$2" -t "$1" ;; '
    f'it) printf %s "$1" | {FESTIVAL} ;; esac\' sh {{text}} {{output}} {{language}}'
)

if __name__ == "__main__":
    missing = [name for name in ("espeak-ng", "flite", "text2wave") if shutil.which(name) is None]
    if missing or len(sys.argv) < 2:
        sys.exit(__doc__ if not missing else f"{missing[0]} is not installed; {__doc__.strip().splitlines()[-1]}")
    texts = f"texts:{ROOT / 'samples' / 'texts.jsonl'}"
    sys.exit(run(["evaluate", texts, "--system", ESPEAK, "--system", OTHER, "--out", sys.argv[1], *sys.argv[2:]]))
