"""The 30-language set: up to 500 sentences a language, from Common Voice or FLEURS as they are published (report 4.3).

A folder holds a folder a language, named by a code or as the corpus names it (`en`, `sv-SE`, `es_419`, `cmn_hans_cn`):

    Common Voice   LANGUAGE/test.tsv (header with `path` and `sentence`) and LANGUAGE/clips/
    FLEURS         LANGUAGE/test.tsv (no header: id, file, raw text, ...) and LANGUAGE/audio/test/

The report's own set is not published. A text is cloned from another speaker's recording: the next one of the file,
whose sentence is its `reference_text`.
"""

import csv
import io
from pathlib import Path

from evaluation.benchmarks.benchmark import Benchmark, Collector, Utterance, first_existing, lines_of
from voxmill.core.errors import UserError
from voxmill.data.languages import LANGUAGES

NAME = "thirty-languages"
SENTENCES = 500
_ALIASES = {"cmn": "zh", "nb": "no", "nn": "no", "fil": "tl", "iw": "he", "in": "id"}


def read_thirty_languages(path: Path) -> Benchmark:
    """Utterances of all languages in the folder, the first 500 distinct sentences of each, ids `LANGUAGE/CLIP`.

    Raises:
        UserError: no `LANGUAGE/test.tsv` below the folder.
    """
    files = sorted(path.glob("*/test.tsv"))
    if not files:
        raise UserError(f"{path}: no LANGUAGE/test.tsv in it; name a folder in Common Voice's or FLEURS's layout")
    collector = Collector()
    for file in files:
        language = _language(file.parent.name)
        if language is None:
            collector.fail(file, 1, f"{file.parent.name!r} is none of the 30 languages; skipped")
            continue
        _read(file, language, collector)
    return collector.benchmark(NAME, NAME, path)


def _language(folder: str) -> str | None:
    code = folder.replace("-", "_").split("_")[0].lower()
    code = _ALIASES.get(code, code)
    return code if code in LANGUAGES else None


def _read(file: Path, language: str, collector: Collector) -> None:
    rows: list[tuple[int, str, str]] = []
    texts: set[str] = set()
    header: list[str] | None = None
    for number, line in lines_of(file):
        # Neither corpus quotes; a quotation mark in a sentence is one.
        fields = next(csv.reader(io.StringIO(line), delimiter="\t", quoting=csv.QUOTE_NONE))
        if number == 1 and "path" in fields and "sentence" in fields:
            header = fields
            continue
        clip, text = _fields(fields, header)
        if not clip or not text:
            collector.fail(file, number, f"{len(fields)} columns, no clip and sentence among them")
        elif text not in texts:
            texts.add(text)
            rows.append((number, clip, text))
        if len(rows) == SENTENCES:
            break
    for index, (number, clip, text) in enumerate(rows):
        _, other, reference_text = rows[(index + 1) % len(rows)]
        reference = _audio(file.parent, other) if len(rows) > 1 else None
        id_ = f"{language}/{Path(clip).stem}"
        one = Utterance(id_, text, language, language, reference, reference_text if reference else None)
        collector.add(one, file, number)


def _fields(fields: list[str], header: list[str] | None) -> tuple[str, str]:
    """(clip, sentence) of a row, empty where there is none."""
    if header is None:
        return (fields[1].strip(), fields[2].strip()) if len(fields) >= 3 else ("", "")
    row = dict(zip(header, fields, strict=False))
    return row.get("path", "").strip(), row.get("sentence", "").strip()


def _audio(folder: Path, clip: str) -> Path:
    return first_existing([folder / "clips" / clip, folder / "audio" / "test" / clip, folder / clip])
