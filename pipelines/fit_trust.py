"""`voxmill fit-trust`: fits what predicts word error rates on a dataset made of recordings of known words."""

import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from annotation.speech.known_text import ClipErrors, HeardClip, KnownRecording, clip_errors, read_known_text
from annotation.speech.recognisers.config import RecogniserConfig
from annotation.speech.transcription import CHUNK_SECONDS
from annotation.speech.wer_fitting import Examples, fifths, fit
from annotation.speech.wer_prediction import DIRECTIONS, FORMAT, VoiceCount, WerFit, is_measured, measures
from pipelines.corpus.trust import recogniser, wrote
from pipelines.report.run_record import read_run
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.data.dataset import Dataset
from voxmill.data.layout import read_index
from voxmill.data.records import Recording, ShardMetadata, to_json_text
from voxmill.data.schemas import columns_of, from_table

MIN_CLIPS, MIN_VOICES = 100, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedClip:
    """A clip of a recording of known words, kept or rejected, and its errors; None where they cannot be told."""

    clip: ShardMetadata
    recording: KnownRecording
    errors: ClipErrors | None

    @property
    def judged(self) -> bool:
        """Whether its words are known, and no digits are among them."""
        return self.errors is not None and not self.errors.numbers and self.errors.length > 0


def fit_trust(out: Path, truth: Path, target: Path, recordings: str) -> WerFit:
    """Writes the fit for the recogniser that OUT was made with, as JSON, and returns it.

    Args:
        out: of `voxmill annotate` over the recordings; kept and rejected clips count alike.
        truth: as `annotation.speech.known_text` describes it.
        recordings: what they are, for whoever reads the numbers.

    Raises:
        UserError: a file cannot be read, or there are too few clips or voices.
    """
    texts = read_known_text(truth)
    try:
        config = read_run(out)["config"]
    except FileNotFoundError:
        raise UserError(f"{out}: no run.json there; name the OUT of a finished `voxmill annotate`") from None
    assert isinstance(config, dict)
    written = config["label"]["transcription"]
    known = {key: written[key] for key in RecogniserConfig.model_fields if key in written}
    name, sha256 = recogniser(RecogniserConfig.model_validate(known))
    # Clips of a language that has a recogniser of its own tell nothing of this one.
    judged = [row for row in judged_clips(out, texts) if wrote(name, row.clip)]
    result = make_fit(judged, (name, sha256), recordings)
    write_atomically(
        target, json.dumps(json.loads(to_json_text(result)), indent=1, ensure_ascii=False).encode() + b"\n"
    )
    return result


def make_fit(judged: Sequence[JudgedClip], recogniser: tuple[str, str], recordings: str) -> WerFit:
    """The fit on clips that are not held out, tried on those that are.

    Args:
        recogniser: its name and the hash of its weights, as `pipelines.corpus.trust` has them.
        recordings: as `fit_trust`.

    Raises:
        UserError: there are too few clips or voices, or the recogniser tells too little.
    """
    # The measures of a clip that was recognised in pieces are means: a fit is made for the pieces.
    whole = [row for row in judged if row.clip.duration <= CHUNK_SECONDS]
    if not all(is_measured(row.clip) for row in whole):
        raise UserError(
            f"{recogniser[0]} does not tell how probable its words are, of which error rates are predicted; no fit "
            "can be made for it, and `select.without_fit` applies"
        )
    seen, unseen = ([row for row in whole if row.recording.held_out is held_out] for held_out in (False, True))
    known, tried_on = ([row for row in rows if row.judged] for rows in (seen, unseen))
    voices = {row.recording.voice for row in known}
    if len(known) < MIN_CLIPS or len(voices) < MIN_VOICES:
        raise UserError(
            f"{len(known)} clips of {len(voices)} voices have known words and may be fitted on; "
            f"it takes {MIN_CLIPS} clips of {MIN_VOICES} voices"
        )
    shown = examples = _examples(seen)
    fitted = fit(examples)
    rates = fitted.unseen
    if tried_on:
        shown = _examples(unseen)
        rates = fitted.predict(shown)
    judged_rows = shown.judged
    return WerFit(
        format=FORMAT,
        recogniser=recogniser[0],
        sha256=recogniser[1],
        voxmill=version("voxmill"),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        recordings=recordings,
        bias=fitted.regression.bias,
        terms=fitted.regression.terms,
        others=fitted.others,
        curve=fitted.curve,
        fitted_on=_counts(known),
        tried_on=_counts(tried_on),
        fifths=fifths(rates[judged_rows], shown.errors[judged_rows], shown.words[judged_rows]),
        left_out=len(judged) - len(known) - len(tried_on),
    )


def judged_clips(out: Path, known: dict[str, KnownRecording]) -> Iterator[JudgedClip]:
    """Transcribed clips of the recordings of a dataset of which the words are known, kept and rejected ones."""
    recordings = from_table(Recording, read_index(out / "recordings.parquet", columns_of(Recording)))
    paths = {row.recording_id: row.path for row in recordings}
    clips = Dataset.open(out).records(ShardMetadata)
    clips += from_table(ShardMetadata, read_index(out / "rejected.parquet", columns_of(ShardMetadata)))
    by_path: dict[str, list[ShardMetadata]] = {}
    for clip in clips:
        by_path.setdefault(paths[clip.recording_id], []).append(clip)
    for path, recording in sorted(known.items()):
        own = sorted(by_path.get(path, ()), key=lambda clip: (clip.start_sample, clip.clip_id))
        heard = [
            HeardClip(start=_seconds(clip, clip.start_sample), end=_seconds(clip, clip.end_sample), text=clip.text)
            for clip in own
        ]
        for clip, errors in zip(own, clip_errors(heard, recording.turns), strict=True):
            if clip.transcript is not None and clip.quality is not None:
                yield JudgedClip(clip=clip, recording=recording, errors=errors)


def _seconds(clip: ShardMetadata, sample: int) -> float:
    return sample / clip.sample_rate


def _examples(judged: Sequence[JudgedClip]) -> Examples:
    values = [measures(row.clip, row.clip.duration) for row in judged]
    return Examples(
        measures=np.array([[value[name] for name in DIRECTIONS] for value in values]).reshape(-1, len(DIRECTIONS)),
        errors=np.array([row.errors.errors if row.errors and row.judged else 0 for row in judged], float),
        words=np.array([row.errors.length if row.errors and row.judged else 0 for row in judged], float),
        voices=np.array([row.recording.voice for row in judged]),
        recordings=np.array([row.clip.recording_id for row in judged]),
        seconds=np.array([row.clip.duration for row in judged], float),
    )


def _counts(judged: Sequence[JudgedClip]) -> tuple[VoiceCount, ...]:
    groups: dict[tuple[str, str], list[float]] = {}
    for row in judged:
        groups.setdefault((row.recording.voice, row.recording.turns[0].language), []).append(row.clip.duration)
    return tuple(
        VoiceCount(voice=voice, language=language, clips=len(seconds), seconds=round(sum(seconds), 1))
        for (voice, language), seconds in sorted(groups.items())
    )
