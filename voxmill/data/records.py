"""The records that carry data through the house: what one worker does to one recording, and what a clip is.

Frozen dataclasses of the standard library. JSON is written and read here, by one `pydantic.TypeAdapter` a record; Arrow
schemas are derived from the same fields in `schemas.py`. What is done to all clips of a corpus works on tables of those
schemas, never on an object a clip.
"""

import json
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Seconds = float
Hertz = int
ClipId = str
Mode = Literal["basic", "continuation", "design", "reference", "controllable"]
MODES: tuple[Mode, ...] = ("basic", "continuation", "design", "reference", "controllable")
CurriculumStage = Literal[1, 2, 3]
Origin = Literal["native", "separated", "synthetic"]
Channel = Literal["mean", "left", "right"]
CutBy = Literal["pause", "speaker", "overlap", "forced"]
Axis = Literal["design", "style"]
Granularity = Literal["tags", "phrase", "sentence", "paragraph"]
ClaimOutcome = Literal["pass", "fail", "abstain"]
FunnelStep = Literal["readable", "speech", "clips", "kept"]
"""Steps of the report's funnel that a stage's compute can belong to."""

T = TypeVar("T")


class StageName(StrEnum):
    """One vocabulary: Ray actors, journal, `run.json`, endings of recordings and clips, the report's funnel."""

    SCAN = "scan"
    DECODE = "decode"
    EVENTS = "events"
    SEPARATION = "separation"
    SEGMENTATION = "segmentation"
    TRANSCRIPTION = "transcription"
    QUALITY = "quality"
    WRITE = "write"
    VOICE_ATTRIBUTES = "voice_attributes"
    PROSODY = "prosody"
    SPEAKER = "speaker"
    GENDER = "gender"
    EMOTION = "emotion"
    AGE = "age"
    SELECTION = "selection"
    DESCRIPTIONS = "descriptions"

    @property
    def funnel_step(self) -> FunnelStep:
        """What the report's funnel counts right after this stage; its compute is shown there."""
        return _FUNNEL_STEPS.get(self, "kept")


_FUNNEL_STEPS: dict[StageName, FunnelStep] = {
    StageName.SCAN: "readable",
    StageName.DECODE: "readable",
    StageName.EVENTS: "speech",
    StageName.SEPARATION: "clips",
    StageName.SEGMENTATION: "clips",
}


# ---- how things end and what they cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a recording or a clip went no further: the stage, a code, the measured value beside its threshold."""

    stage: StageName
    reason: str
    value: float | None = None
    threshold: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Compute of one stage: wall-clock seconds, seconds of audio that were left after it, calls of its model."""

    seconds: Seconds = 0.0
    audio_seconds: Seconds = 0.0
    calls: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            seconds=self.seconds + other.seconds,
            audio_seconds=self.audio_seconds + other.audio_seconds,
            calls=self.calls + other.calls,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """What no recording is to blame for and ends the job: a user's mistake or the machine's state, in one line."""

    kind: Literal["user", "machine"]
    message: str


# No slots: a frozen generic class with slots cannot be called as `Label[Gender](...)`.
@dataclass(frozen=True, kw_only=True)
class Label(Generic[T]):
    """One labeller's answer for one clip: a value, an abstention with its reason, or an error.

    value: the answer; None where there is none.
    reason: of an abstention: `no_model`, `too_short`, `silent`, `no_pitch`, `unsure`, `not_an_emotion`; "" otherwise.
    error: what broke the labeller on this clip, one line; "" otherwise.
    withheld: with some abstentions, the answer that was not sure enough to be given. Its scores are measurements all
        the same.
    """

    value: T | None = None
    reason: str = ""
    error: str = ""
    withheld: T | None = None

    @property
    def measured(self) -> T | None:
        """The answer, given or withheld."""
        return self.value if self.value is not None else self.withheld


# ---- what labellers measure


@dataclass(frozen=True, slots=True)
class Word:
    """One word; times in seconds from the clip's start, probability 0..1."""

    word: str
    start: Seconds
    end: Seconds
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What one recording holds.

    speech_seconds: seconds of speech. music_share, singing_share: of the speech, 0..1 (of all audio where there is no
    speech). snr_db: power of speech frames over that of the quiet frames. speech: (start, end) in seconds.
    """

    speech_seconds: Seconds
    music_share: float
    singing_share: float
    snr_db: float
    speech: tuple[tuple[Seconds, Seconds], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """Whether a recording was to be separated from its background, why in a few words, and whether that was used.

    gain_dnsmos_bak, loss_dnsmos_sig: what separation changed, on the 1..5 scale; None where it did not run.
    """

    wanted: bool
    why: str
    used: bool = False
    gain_dnsmos_bak: float | None = None
    loss_dnsmos_sig: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Measures of one clip before its gain; `gain_db` is what was then applied when it was written.

    DNSMOS on the 1..5 scale, `clipping` a share of samples, `dc_offset` in full scale, `loudness_lufs` per BS.1770.
    """

    dnsmos_sig: float
    dnsmos_bak: float
    dnsmos_ovr: float
    dnsmos_p808: float
    snr_db: float
    clipping: float
    bandwidth_hz: float
    loudness_lufs: float
    gain_db: float
    dc_offset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptChecks:
    """Measures of one transcript; thresholds are applied later, by selection.

    compression_ratio: bytes over zlib bytes. repeated_ngram: share of the most frequent trigram, 0..1.
    text_language: of the text by itself, "" where it is empty. mean_log_probability: over Whisper's tokens.
    redecoded: decoded a second time with a wider beam. given_wer: word error rate of the manifest's text, None
    where the manifest gives none.
    """

    compression_ratio: float
    repeated_ngram: float
    characters_per_second: float
    text_language: str
    text_language_probability: float
    mean_log_probability: float
    no_speech_probability: float
    redecoded: bool
    aligner: str
    given_wer: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prosody:
    """Measures of one clip; None where there is nothing to measure them on.

    f0_median_hz: median pitch over voiced frames.
    f0_std_semitones, f0_range_semitones: standard deviation, and 5th to 95th percentile, around that median.
    voiced_share: voiced frames of the frames that are not silent, 0..1.
    energy_std_db, energy_range_db: the same two measures of the level of frames that are not silent.
    rate: syllables (or characters, see `rate_unit`) a second from the first word's start to the last word's end.
    articulation_rate: the same without pauses.
    pauses, pause_share, longest_pause: gaps between words: how many, their share of that time (0..1), seconds.
    hnr_db: harmonics to noise (Boersma 1993), median over voiced frames; breathy and hoarse voices are low.
    spectral_tilt_db: level of 50-1000 Hz over 1000-5000 Hz in voiced frames; pressed voices are low.
    jitter, shimmer: mean change of period length, and of peak height, from one period to the next, relative, 0..1.
        Good for ranks, not for Praat's norms: 1.6 and 2.4 times Praat's on the samples, correlation 0.8 and 0.7.
    """

    f0_median_hz: float | None
    f0_std_semitones: float | None
    f0_range_semitones: float | None
    voiced_share: float
    energy_std_db: float | None
    energy_range_db: float | None
    rate: float | None
    articulation_rate: float | None
    pause_share: float
    longest_pause: Seconds
    hnr_db: float | None
    spectral_tilt_db: float | None
    jitter: float | None
    shimmer: float | None
    pauses: int
    rate_unit: Literal["syllables", "characters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gender:
    """How a voice sounds. `female`: probability of a female voice, 0..1."""

    label: Literal["female", "male"]
    female: float

    @property
    def probability(self) -> float:
        """Of the label, 0.5..1."""
        return max(self.female, 1 - self.female)

    @property
    def probabilities(self) -> dict[str, float]:
        """Of both labels."""
        return {"female": self.female, "male": 1 - self.female}


@dataclass(frozen=True, slots=True, kw_only=True)
class Emotion:
    """The most probable emotion, its probability, and those of all.

    Names are the house's own (`neutral`, `happy`, `sad`, `angry`, `fearful`, `disgusted`, `surprised`, `calm`) or the
    model's. `intensity` is 1 - P(neutral), None when the model has no neutral.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    intensity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """The most probable band: `child`, `young` (13-39), `middle-aged` (40-59) or `elderly`; probabilities of all."""

    label: str
    probability: float
    probabilities: dict[str, float]


# ---- the way of a recording through the stages


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """What the manifest gives for a recording; `session` is the recording's name where it gives none."""

    session: str
    speaker: str | None = None
    text: str | None = None
    language: str | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of one recording, in samples at its own rate (at most 48 kHz).

    name: of the recording, as shown and sorted by. digests: of the blocks of samples that the window touches.
    """

    recording_id: str
    name: str
    path: str
    start_sample: int
    end_sample: int
    sample_rate: Hertz
    channel: Channel = "mean"
    digests: tuple[str, ...] = ()
    source: SourceInfo

    @property
    def seconds(self) -> Seconds:
        return (self.end_sample - self.start_sample) / self.sample_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One clip before corpus labels: what the unit file stores. Bounds are samples of the recording, always.

    `turn` numbers the speaker within the window; `cut` is what ended the clip. Text, words and language are empty
    before transcription, `transcript` and `quality` None before they are measured.
    """

    clip_id: ClipId
    start_sample: int
    end_sample: int
    turn: int
    cut: CutBy
    text: str = ""
    words: tuple[Word, ...] = ()
    language: str = ""
    language_probability: float = 0.0
    transcript: TranscriptChecks | None = None
    quality: Quality | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowResult:
    """What is known of a window, filled stage by stage: a stage returns a new one, and none after an `ending`."""

    window: Window
    dc_offset: float = 0.0
    events: Events | None = None
    separation: Separation | None = None
    candidates: tuple[Candidate, ...] = ()
    ending: Ending | None = None

    @property
    def origin(self) -> Origin:
        return "separated" if self.separation is not None and self.separation.used else "native"

    @property
    def clips(self) -> tuple[Candidate, ...]:
        """Candidates of a window that no stage has ended."""
        return self.candidates if self.ending is None else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkUnit:
    """One row of the graph: a window of a long recording or several short recordings. Its audio travels beside it."""

    unit_id: str
    results: tuple[WindowResult, ...]
    costs: dict[StageName, Cost]
    failure: JobFailure | None = None

    @property
    def seconds(self) -> Seconds:
        return sum(result.window.seconds for result in self.results)


# ---- a clip of the finished dataset: the columns of the indexes, in their order


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassColumn:
    """A classifier's answer as the index holds it: no label with an abstention, whose reason then stands there."""

    label: str | None
    probability: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is known of a clip.

    attribute: such as `pitch` or `gender`; axis: design (the voice) or style (this delivery).
    word: English, such as `low` or `female`.
    value, unit: the number behind the word; None for classes. z: distance from the group's middle in its widths.
    relative_to: the group, such as `female voices, en`. probability: of a class, None for measured values.
    also: the neighbouring word where the value lies near the border of two.
    """

    attribute: str
    axis: Axis
    word: str
    _: KW_ONLY
    unit: str = ""
    relative_to: str = ""
    also: str = ""
    value: float | None = None
    z: float | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerdict:
    """How one claim of a description ended. `claimed` starts with 'not ' when the text denies it.

    predicted: the measured word or the classifier's class, None where there is none. probability: that the claim holds,
    0..1, None for an abstention without evidence.
    """

    attribute: str
    claimed: str
    predicted: str | None
    verdict: ClaimOutcome
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class FactWord:
    """A fact as a description was written from it."""

    attribute: str
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One verified text. `facts` are the words it was written from, of its axis; `recall` how many it names, 0..1."""

    axis: Axis
    granularity: Granularity
    language: str
    text: str
    generator: str
    facts: tuple[FactWord, ...] = ()
    verdicts: tuple[ClaimVerdict, ...] = ()
    recall: float | None = None
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """A clip that may serve as the reference of another, and its cosine to it, 0..1."""

    clip_id: ClipId
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Eligibility:
    """`modes` that a clip can teach, the curriculum stages it may enter with which modes, and why not the others."""

    modes: tuple[Mode, ...]
    by_stage: dict[CurriculumStage, tuple[Mode, ...]]
    why_not: dict[CurriculumStage, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageModes:
    """One entry of `Eligibility.by_stage` as the index holds it."""

    stage: CurriculumStage
    modes: tuple[Mode, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlace:
    """Where the bytes of a clip lie: a member of a tar below OUT. `sha256` is of those bytes."""

    shard: str
    offset: int
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardMetadata:
    """What a clip's audio was cut with: the index has it, and the clip's `.json` member in the shard."""

    clip_id: ClipId
    recording_id: str
    session: str
    position: int | None
    start_sample: int
    end_sample: int
    sample_rate: Hertz
    duration: Seconds
    text: str
    words: tuple[Word, ...]
    language: str
    language_probability: float
    speaker: str | None
    turn: int
    origin: Origin
    cut: CutBy
    quality: Quality
    transcript: TranscriptChecks
    licence: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip(ShardMetadata):
    """A row of `clips.parquet`: what the shard says of the clip, labels that may be added or change later, its place.

    `parents` names the clips that a synthetic one was made from.
    """

    cluster: str | None = None
    prosody: Prosody | None = None
    expressiveness: float | None = None
    expressiveness_percentile: float | None = None
    gender: ClassColumn | None = None
    emotion: ClassColumn | None = None
    age: ClassColumn | None = None
    facts: tuple[Fact, ...] = ()
    descriptions: tuple[Description, ...] = ()
    references: tuple[Reference, ...] | None = None
    no_reference: str | None = None
    parents: tuple[ClipId, ...] = ()
    modes: tuple[Mode, ...] | None = None
    stages: tuple[CurriculumStage, ...] | None = None
    stage_modes: tuple[StageModes, ...] | None = None
    shard: str
    offset: int
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedClip(Clip):
    """A row of `rejected.parquet`: a clip and its `Ending`. Its audio lies in the unit's file below `work/`."""

    stage: str
    reason: str
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A row of `recordings.parquet`: one input with its one terminal state."""

    recording_id: str | None
    path: str
    session: str
    state: Literal["kept", "rejected", "duplicate", "unreadable"]
    stage: str | None = None
    reason: str | None = None
    value: float | None = None
    threshold: float | None = None
    detail: str = ""
    duration: Seconds | None = None
    sample_rate: Hertz | None = None
    channels: int | None = None
    codec: str | None = None
    num_clips: int = 0
    num_kept: int = 0
    separated: bool | None = None
    separation: str | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """A row of `latents.parquet`: a clip's latent frames in a shard of latents, and the space that they belong to."""

    clip_id: ClipId
    shard: str
    offset: int
    size: int
    sha256: str
    num_frames: int
    latent_space: str


# ---- JSON

_adapters: "dict[object, TypeAdapter[Any]]" = {}


def _adapter(kind: Any) -> "TypeAdapter[Any]":
    # pydantic is imported with the first record that is read or written.
    from pydantic import TypeAdapter

    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def to_json_text(record: object, kind: object = None) -> str:
    """A record as JSON, numbers exact; `kind` is its type where the class alone does not tell (`Label[Gender]`)."""
    plain = _adapter(kind or type(record)).dump_python(record, mode="json")
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def from_json_text(kind: type[T], text: str | bytes) -> T:
    """The record that `to_json_text` wrote.

    Raises:
        ValueError: the text is no JSON, or no such record.
    """
    record: T = _adapter(kind).validate_json(text)
    return record
