"""MiniMax-MLS-Test: `text/LANGUAGE.txt` of `speaker|text` lines, recordings under `speaker/` (arXiv:2505.07916).

24 languages, 100 lines and two speakers each. There is no official scorer; this project's is in `normalisation`.
"""

from pathlib import Path

from evaluation.benchmarks.benchmark import Benchmark, Collector, Utterance, lines_of
from voxmill.core.errors import UserError

NAME = "minimax-mls"
LANGUAGES = {
    "arabic": "ar",
    "cantonese": "zh-yue",
    "chinese": "zh",
    "czech": "cs",
    "dutch": "nl",
    "english": "en",
    "finnish": "fi",
    "french": "fr",
    "german": "de",
    "greek": "el",
    "hindi": "hi",
    "indonesian": "id",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "polish": "pl",
    "portuguese": "pt",
    "romanian": "ro",
    "russian": "ru",
    "spanish": "es",
    "thai": "th",
    "turkish": "tr",
    "ukrainian": "uk",
    "vietnamese": "vi",
}
AUDIO = (".mp3", ".wav", ".flac")


def read_minimax_mls(path: Path) -> Benchmark:
    """Utterances of the data set's folder, or of one `text/LANGUAGE.txt` in it.

    Raises:
        UserError: no `text` folder, or a file whose name is none of the 24 languages.
    """
    files = [path] if path.is_file() else sorted((path / "text").glob("*.txt"))
    if not files:
        raise UserError(f"{path}: no text/*.txt in it; name the folder of the data set")
    root = files[0].parent.parent
    speakers = _speakers(root / "speaker")
    collector = Collector()
    texts = _prompt_texts(root / "speaker" / "prompt_text.txt", collector)
    for file in files:
        language = LANGUAGES.get(file.stem.lower())
        if language is None:
            raise UserError(f"{file}: {file.stem!r} is none of the 24 languages; keep the data set's own names")
        for number, line in lines_of(file):
            speaker, bar, text = (part.strip() for part in line.partition("|"))
            key = Path(speaker).stem
            if not bar or key not in speakers:
                why = "no '|' in it; write speaker|text" if not bar else f"no recording of {speaker!r} under speaker/"
                collector.fail(file, number, why)
                continue
            recording = speakers[key]
            reference_text = texts.get(recording.stem) or texts.get(key)
            id_ = f"{file.stem.lower()}/{key}-{number:03d}"
            collector.add(Utterance(id_, text, language, file.stem.lower(), recording, reference_text), file, number)
    return collector.benchmark(NAME, NAME, path)


def _speakers(folder: Path) -> dict[str, Path]:
    """Recordings by their own name and by their folder's (`english_female`), both of which lists use."""
    recordings: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in AUDIO:
            recordings.setdefault(path.stem, path)
            recordings.setdefault(path.parent.name, path)
    return recordings


def _prompt_texts(path: Path, collector: Collector) -> dict[str, str]:
    """Transcripts of the recordings, by file name without ending; the file may be missing."""
    texts: dict[str, str] = {}
    if not path.exists():
        return texts
    for number, line in lines_of(path):
        name, bar, text = line.partition("|")
        if not bar:
            name, bar, text = line.partition("\t")
        if bar and text.strip():
            texts[Path(name.strip()).stem] = text.strip()
        else:
            collector.fail(path, number, "no '|' or tab between a recording and its text")
    return texts
