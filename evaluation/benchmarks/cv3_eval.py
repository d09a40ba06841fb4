"""CV3-Eval: Kaldi-style folders with `text`, `prompt_text` and `prompt_wav.scp` (arXiv:2505.17589).

A folder is a language (`ja`), a hard set (`hard_zh`), a cross-lingual set (`to_ko`) or emotions (`en`, ids such as
`happy_high_uttid_1`); a tree of such folders is read as a whole. Places in `prompt_wav.scp` start at the repository.
"""

import re
from pathlib import Path

from evaluation.benchmarks.benchmark import Benchmark, Collector, Utterance, first_existing, lines_of
from voxmill.core.errors import UserError

NAME = "cv3-eval"
LANGUAGES = ("zh", "en", "ja", "ko", "de", "es", "fr", "it", "ru")
_EMOTION = re.compile(r"(happy|sad|angry)_(high|low)_")


def read_cv3_eval(path: Path) -> Benchmark:
    """Utterances of a folder with `text`, or of all such folders below; not of folders inside one.

    Raises:
        UserError: no such folder, or one whose name tells no language.
    """
    folders = _folders(path)
    if not folders:
        raise UserError(
            f"{path}: no folder with `text` and `prompt_wav.scp` in it; name one of CV3-Eval's data folders"
        )
    collector = Collector()
    for folder in folders:
        below = folder.relative_to(path).as_posix()
        prefix = "" if below == "." else f"{below}/"
        _read(folder, prefix, collector)
    return collector.benchmark(NAME, NAME, path)


def _folders(path: Path) -> list[Path]:
    if (path / "text").is_file():
        return [path]
    if not path.is_dir():
        return []
    return [folder for child in sorted(path.iterdir()) if child.is_dir() for folder in _folders(child)]


def _read(folder: Path, prefix: str, collector: Collector) -> None:
    language = _language(folder)
    prompt_texts = _table(folder / "prompt_text", collector)
    prompt_wavs = _table(folder / "prompt_wav.scp", collector)
    # The zero-shot sets are the report's Table 5, whose columns have the languages' names alone.
    group = (prefix.rstrip("/") or folder.name).removeprefix("zero_shot/").replace("_", "-")
    for number, line in lines_of(folder / "text"):
        id_, _, text = line.strip().partition(" ")
        emotion = _EMOTION.match(id_)
        place = prompt_wavs.get(id_)
        if not text.strip():
            collector.fail(folder / "text", number, f"an id and its text are needed, not {line.strip()[:40]!r}")
            continue
        if place is None:
            collector.fail(folder / "text", number, f"{id_} has no line in prompt_wav.scp")
            continue
        utterance = Utterance(
            prefix + id_,
            text.strip(),
            language,
            f"{group}-{emotion[1]}" if emotion else group,
            _resolve(folder, place),
            prompt_texts.get(id_),
            emotion=emotion[1] if emotion else None,
            emotion_level=emotion[2] if emotion else None,
        )
        collector.add(utterance, folder / "text", number)


def _table(path: Path, collector: Collector) -> dict[str, str]:
    """Kaldi's `key value` lines; a missing `prompt_text` is an empty table."""
    rows: dict[str, str] = {}
    if path.name == "prompt_text" and not path.exists():
        return rows
    for number, line in lines_of(path):
        key, _, value = line.strip().partition(" ")
        if not value.strip():
            collector.fail(path, number, f"a key and a value are needed, not {line.strip()[:40]!r}")
        elif key in rows:
            collector.fail(path, number, f"{key} is there twice")
        else:
            rows[key] = value.strip()
    return rows


def _language(folder: Path) -> str:
    for name in (folder.name, folder.parent.name):
        code = name.rsplit("_", 1)[-1]
        if code in LANGUAGES:
            return code
    raise UserError(f"{folder}: its name ends in no language of CV3-Eval ({', '.join(LANGUAGES)}); keep its own names")


def _resolve(folder: Path, place: str) -> Path:
    """The reference: from the repository's root wherever it is above, else from this folder."""
    above = [parent / place for parent in (folder, *folder.resolve().parents)]
    return first_existing([*above, folder / "waveform" / Path(place).name])
