"""Two real engines on 60 texts in two languages, with the sample voices in place of cloned ones: docs/evaluation.md.

    python benchmarks/engines.py OUT [key=value ...]

espeak-ng speaks both languages; flite speaks the English texts and festival the Italian ones, as one system. None of
them clones, so SIM is that of strangers. Debian: apt-get install -y espeak-ng flite festival festvox-italp16k. The
table is that of `voxmill evaluate`; the last line is one JSON object.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from voxmill.cli.app import run  # noqa: E402
from voxmill.core.errors import UserError, command  # noqa: E402

ESPEAK = "espeak-ng=command:espeak-ng -v {language} -w {output} -- {text}"
FESTIVAL = 'iconv -f utf-8 -t iso-8859-1//TRANSLIT | text2wave -eval "(voice_lp_diphone)" -o "$2"'
OTHER = (
    "flite+festival=command:sh -c '"
    'case "$3" in en) flite -voice slt -o "$2" -t "$1" ;; '
    f'it) printf %s "$1" | {FESTIVAL} ;; esac\' sh {{text}} {{output}} {{language}}'
)
PROGRAMS = ("espeak-ng", "flite", "text2wave")


@command("benchmarks/engines.py")
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="where the scores are written")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of `voxmill evaluate`")
    options = parser.parse_args()
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise UserError(f"{missing[0]} is not installed; apt-get install -y espeak-ng flite festival festvox-italp16k")
    texts = f"texts:{ROOT / 'samples' / 'texts.jsonl'}"
    systems = ["--system", ESPEAK, "--system", OTHER]
    status = run(["evaluate", texts, *systems, "--out", str(options.out), *options.overrides])
    print(json.dumps({"status": int(status), "out": str(options.out)}))
    return status


if __name__ == "__main__":
    sys.exit(main())
