"""The records that carry data through the house: what one worker does to one recording, and what a clip is.

Frozen dataclasses of the standard library. JSON is written and read here, by one `pydantic.TypeAdapter` a record; Arrow
schemas are derived from the same fields in `schemas.py`. What is done to all clips of a corpus works on tables of those
schemas, never on an object a clip.
"""

import json
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from pydantic import TypeAdapter

Seconds = float
Hertz = int
ClipId = str
Mode = Literal["basic", "continuation", "design", "reference", "controllable"]
MODES: tuple[Mode, ...] = ("basic", "continuation", "design", "reference", "controllable")
CurriculumStage = Literal[1, 2, 3]
Origin = Literal["native", "separated", "synthetic"]
Background = Literal["music", "noise"]
WarningKind = Literal[
    "damaged_data",  # pieces that the decoder refused; what lies between them is silence
    "ends_early",  # shorter than the header says
    "wrapped_size",  # the header's size is wrong, all of the sound was read
    "rate_change",  # resampled to the rate that it begins with
    "timestamp_hole",  # filled with silence, so that times point into the file
    "timestamp_jump",  # not followed: from there on times count the sound
    "non_finite",  # samples that are no numbers, set to 0
    "out_of_scale",  # samples beyond full scale, scaled or clipped
    "no_such_channel",  # the channel that was asked for
    "text_unreadable",  # the text beside it, or its segments
    "text_empty",  # the text beside it has no words
    "segment_reversed",  # a segment that ends before it starts; it is left out
    "segments_overlap",  # segments that are not one after another
    "segment_short",  # segments in which nothing can be said
    "segment_repeated",  # segments with the times of another one
    "segment_outside",  # a segment that begins or ends where the recording has no sound
    "labels_unreadable",  # the labels beside it, or columns too long to keep
    "dialect_unknown",  # a dialect of Chinese that has no tag here
    "languages_differ",  # of its parts: the language of each is detected
    "labels_missing",  # none beside it, though others of the same tar have some
    "text_of_another_recording",  # hardly any of what is said is in the text
    "text_not_read",  # most of the text is not said
]
TextSource = Literal["given", "recognised", "corrected"]
FactSource = Literal["measured", "classified", "given", "speaker"]
CutBy = Literal["pause", "speaker", "overlap", "language", "forced", "given"]
Axis = Literal["design", "style", "both"]
DESCRIPTION_AXES: tuple[Axis, ...] = ("design", "style", "both")
Granularity = Literal["tags", "phrase", "sentence", "paragraph"]
ClaimOutcome = Literal["pass", "fail", "abstain", "unjudged"]
FunnelStep = Literal["readable", "speech", "clips", "kept"]
"""Steps of the report's funnel that a stage's compute can belong to."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class StageName(StrEnum):
    """One vocabulary: Ray actors, attempts, `run.json`, endings of recordings and clips, the report's funnel."""

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
    DIALECT = "dialect"
    MOS = "mos"
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
    """Compute of one stage: wall-clock seconds, seconds of audio that were left after it, calls of its model.

    gpu_seconds: those of `seconds` in which the stage had a GPU to itself.
    again_seconds: those of `seconds` that took what was done a second time because of its outcome.
    lost_calls: made besides `calls` by attempts that ended before their unit was done.
    """

    seconds: Seconds = 0.0
    gpu_seconds: Seconds = 0.0
    again_seconds: Seconds = 0.0
    audio_seconds: Seconds = 0.0
    calls: int = 0
    lost_calls: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            seconds=self.seconds + other.seconds,
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
            again_seconds=self.again_seconds + other.again_seconds,
            audio_seconds=self.audio_seconds + other.audio_seconds,
            calls=self.calls + other.calls,
            lost_calls=self.lost_calls + other.lost_calls,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """What no recording is to blame for and ends the job: a user's mistake or the machine's state, in one line.

    path: an input that this machine cannot see though the driver has read it; "" for other failures.
    """

    kind: Literal["user", "machine"]
    message: str
    path: str = ""


# No slots: a frozen generic class with slots cannot be called as `Label[Gender](...)`.
@dataclass(frozen=True, kw_only=True)
class Label(Generic[T_co]):
    """One labeller's answer for one clip: a value, an abstention with its reason, or an error.

    value: the answer; None where there is none.
    reason: of an abstention: `no_model`, `too_short`, `silent`, `no_pitch`, `unsure`, `not_an_emotion`; "" otherwise.
    error: what broke the labeller on this clip, one line; "" otherwise.
    withheld: with some abstentions, the answer that was not sure enough to be given. Its scores are measurements all
        the same.
    """

    value: T_co | None = None
    reason: str = ""
    error: str = ""
    withheld: T_co | None = None

    @property
    def measured(self) -> T_co | None:
        """The answer, given or withheld."""
        return self.value if self.value is not None else self.withheld


# ---- what labellers measure


@dataclass(frozen=True, slots=True)
class Word:
    """One word; times in seconds from the clip's start, probability 0..1, None where the recogniser tells none."""

    word: str
    """The word as the text has it, with its punctuation."""
    start: Seconds
    """Start from the clip's start. [s]"""
    end: Seconds
    """End from the clip's start. [s]"""
    probability: float | None
    """Probability of the word; null where the recogniser tells none. [0..1]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a window that begins and ends in pauses, in seconds of the window; the rest as in `Events`."""

    start: Seconds
    end: Seconds
    music_share: float
    snr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What one recording holds.

    speech_seconds: seconds of voice, spoken or sung. music_share, singing_share: of the voice, 0..1 (of all audio where
    there is none). snr_db: power of its frames over that of the quiet frames. speech: (start, end) of voice in seconds.
    stretches: one after another, all of the recording. singing: (start, end) of what is sung; None where it was not
    kept, as in units of older versions.
    """

    speech_seconds: Seconds
    music_share: float
    singing_share: float
    snr_db: float
    speech: tuple[tuple[Seconds, Seconds], ...] = ()
    stretches: tuple[Stretch, ...] = ()
    singing: tuple[tuple[Seconds, Seconds], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """Whether something of a window was to be separated from its background, why in a few words, and what was used.

    wanted_in, used_in: (start, end) in seconds of the window; empty where it is all or nothing, by `wanted` and `used`.
    backgrounds, used_by: for each of these stretches what lies behind its speech, and the model that made the voice.
    gain_dnsmos_bak, loss_dnsmos_sig: the most that separation gained and lost in a stretch, on the 1..5 scale; None
    where it did not run.
    """

    wanted: bool
    why: str
    used: bool = False
    wanted_in: tuple[tuple[Seconds, Seconds], ...] = ()
    used_in: tuple[tuple[Seconds, Seconds], ...] = ()
    backgrounds: tuple[Background, ...] = ()
    used_by: tuple[str, ...] = ()
    gain_dnsmos_bak: float | None = None
    loss_dnsmos_sig: float | None = None

    def wanted_seconds(self, seconds: Seconds) -> Seconds:
        """How much of a window of `seconds` it was wanted for."""
        if not self.wanted_in:
            return seconds if self.wanted else 0.0
        return sum(end - start for start, end in self.wanted_in)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Measures of one clip before its gain; `gain_db` is what was then applied when it was written.

    DNSMOS on the 1..5 scale, `clipping` a share of samples, `dc_offset` in full scale, `loudness_lufs` per BS.1770.
    """

    dnsmos_sig: float
    """DNSMOS of the speech itself. [1..5]"""
    dnsmos_bak: float
    """DNSMOS of the background. [1..5]"""
    dnsmos_ovr: float
    """DNSMOS overall. [1..5]"""
    dnsmos_p808: float
    """DNSMOS after P.808, overall by another model. [1..5]"""
    snr_db: float
    """Power of speech frames over that of quiet frames. [dB]"""
    clipping: float
    """Share of the samples that are clipped. [0..1]"""
    bandwidth_hz: float
    """Highest frequency with energy of its own. [Hz]"""
    loudness_lufs: float
    """Loudness before the gain (BS.1770). [LUFS]"""
    gain_db: float
    """Gain that was applied when the clip was written. [dB]"""
    dc_offset: float
    """Mean of the samples. [full scale]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptChecks:
    """Measures of one transcript; thresholds are applied later, by selection."""

    compression_ratio: float
    """Bytes of the text over its zlib bytes; loops of the recogniser are high."""
    repeated_ngram: float
    """Share of the trigrams that are the most frequent one. [0..1]"""
    characters_per_second: float
    """Letters and digits for each second of speech. [1/s]"""
    text_language: str
    """Language detected from the text alone; empty where the text is."""
    text_language_probability: float
    """Probability of that language. [0..1]"""
    mean_log_probability: float | None
    """Mean log probability of the recogniser's tokens; null where it tells none. [nat]"""
    no_speech_probability: float | None
    """The recogniser's probability that there is no speech; null where it tells none. [0..1]"""
    redecoded: bool
    """Whether the clip was decoded a second time."""
    aligner: str
    """Method that placed the words in time."""
    recogniser: str = ""
    """Recogniser that wrote the text: a Whisper model's name, or backend and model; empty from older versions."""
    second_language: str = ""
    """Next most probable language of the audio alone; empty where the recogniser tells none."""
    second_language_probability: float = 0.0
    """Probability of that language. [0..1]"""
    language_confidence: float = 1.0
    """Probability of the clip's language by its sound, the other clips and texts in two near languages. [0..1]"""
    redecoded_for: str = ""
    """Why it was decoded again: doubt, cut_short or language; several are joined by +."""
    agreement: float | None = None
    """Share of words (or characters) that the two decodings have in common; null where it was decoded once. [0..1]"""
    seconds_after_words: Seconds = 0.0
    """Sound between the last word, as the recogniser placed it, and the end of the clip. [s]"""
    words_between: int = 0
    """Words, such as figures, that the aligner could only put between their neighbours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenLabels:
    """What a corpus says of a recording or a part of it, word for word."""

    gender: str | None = None
    """How the speaker sounds or who it is, as the corpus puts it."""
    age: str | None = None
    """Age of the speaker: a number of years, a decade or a word."""
    emotion: str | None = None
    """Emotion of the delivery."""
    accent: str | None = None
    """Accent of the speaker."""
    dialect: str | None = None
    """Dialect that is spoken."""
    style: str | None = None
    """Style of the delivery, such as news or whispering."""
    caption: str | None = None
    """Description of voice or delivery in a sentence or more."""
    extra: str | None = None
    """Columns that mean nothing to voxmill, as a JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenPart:
    """A text that exists for a recording, or a part of it from `start` to `end` in seconds of the recording.

    text: "" where the corpus has a clip there and does not say what is said. channel: on which it is said, from 0; None
    on any. speaker, labels: of this part alone.
    """

    text: str
    start: Seconds | None = None
    end: Seconds | None = None
    channel: int | None = None
    speaker: str | None = None
    labels: GivenLabels | None = None

    def is_on(self, channel: int | None) -> bool:
        """Whether it is said on a channel that is read; None: on the mean of all."""
        return None in (self.channel, channel) or self.channel == channel


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDifference:
    """A place of a clip where the given text and what was recognised are not the same."""

    kind: Literal["missing", "added", "changed"]
    """missing: only in the text; added: only recognised; changed: one stands for the other."""
    given: str
    """Words of the text, as they are compared."""
    recognised: str
    """Words as recognised, likewise."""
    start: Seconds
    """Start from the clip's start. [s]"""
    end: Seconds
    """End from the clip's start. [s]"""
    similarity: float
    """Share of the characters that both have in common. [0..1]"""
    likely: bool
    """Whether the recording and the text probably part here, and not the recogniser alone errs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StressedWord:
    """A word that stands out of its clip by energy, length and pitch together."""

    word: str
    """The word as the text has it."""
    start: Seconds
    """Start from the clip's start. [s]"""
    end: Seconds
    """End from the clip's start. [s]"""
    score: float
    """Mean of the lesser two of its deviations in energy, length and pitch from the clip's words. [z]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prosody:
    """Measures of one clip; None where there is nothing to measure them on.

    `jitter` and `shimmer` are good for ranks, not for Praat's norms: 1.6 and 2.4 times Praat's on the samples,
    correlation 0.8 and 0.7. `hnr_db` is Boersma's (1993).
    """

    f0_median_hz: float | None
    """Median pitch over voiced frames. [Hz]"""
    f0_std_semitones: float | None
    """Standard deviation of the pitch around its median. [semitones]"""
    f0_range_semitones: float | None
    """5th to 95th percentile of the pitch. [semitones]"""
    voiced_share: float
    """Voiced frames of the frames that are not silent. [0..1]"""
    energy_std_db: float | None
    """Standard deviation of the level of frames that are not silent. [dB]"""
    energy_range_db: float | None
    """5th to 95th percentile of that level. [dB]"""
    rate: float | None
    """Syllables or characters (see `rate_unit`) a second, from the first word's start to the last word's end. [1/s]"""
    articulation_rate: float | None
    """The same without pauses. [1/s]"""
    pause_share: float
    """Share of that time that is pauses. [0..1]"""
    longest_pause: Seconds
    """Longest pause. [s]"""
    hnr_db: float | None
    """Harmonics-to-noise ratio, median over voiced frames; low in breathy and hoarse voices. [dB]"""
    spectral_tilt_db: float | None
    """Level of 50-1000 Hz over 1000-5000 Hz in voiced frames; low in pressed voices. [dB]"""
    jitter: float | None
    """Mean relative change of the period from one to the next. [0..1]"""
    shimmer: float | None
    """Mean relative change of the peak height from one period to the next. [0..1]"""
    pauses: int
    """Number of gaps between words that count as pauses."""
    rate_unit: Literal["syllables", "characters"]
    """What the rates count: syllables or characters."""
    cpp_db: float | None = None
    """Cepstral peak prominence, median over voiced frames; low in breathy and rough voices and in noise. [dB]"""
    creak_share: float | None = None
    """Share of the time that is not silent in which the voice creaks: single pulses below 70 Hz. [0..1]"""
    tilt_db: float | None = None
    """Level of 50-1000 Hz over 1000-5000 Hz in all loud frames; below zero in whispers. [dB]"""
    loudness_std_db: float | None = None
    """Standard deviation of the loudest level within 0.3 s, over voiced frames. [dB]"""
    f0_end_semitones: float | None = None
    """By how much the pitch moves over the last 0.4 s of voice; positive rises. [semitones]"""
    low_band_db: float | None = None
    """Level of 80-240 Hz relative to 300-3400 Hz, a hertz; low on the telephone. [dB]"""
    high_band_db: float | None = None
    """Level of 4-7.5 kHz relative to 300-3400 Hz, a hertz; low in narrow bands. [dB]"""
    decay_db_per_s: float | None = None
    """How fast sounds die away at their fastest; in rooms at most 60 over the reverberation time. [dB/s]"""
    emphasis: tuple[StressedWord, ...] = ()
    """Words that stand out most, three at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gender:
    """How a voice sounds. `female`: probability of a female voice, 0..1; `by_model`: each model's, where there are
    several.
    """

    label: Literal["female", "male"]
    female: float
    by_model: dict[str, float] = field(default_factory=dict)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The most probable dialect of Chinese by our code, `zh` for none of those with a tag; probabilities of all."""

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceLabels:
    """The voice labellers' answers for one clip, None where a labeller did not run. `speaker`: a unit vector [D]."""

    prosody: Label[Prosody] | None = None
    speaker: "Label[np.ndarray] | None" = None
    gender: Label[Gender] | None = None
    emotion: Label[Emotion] | None = None
    age: Label[Age] | None = None
    dialect: Label[Dialect] | None = None
    mos: Label[float] | None = None

    def errors(self) -> list[str]:
        """Names of the labellers that broke on this clip."""
        answers: dict[str, Label[object] | None] = {
            "prosody": self.prosody,
            "speaker": self.speaker,
            "gender": self.gender,
            "emotion": self.emotion,
            "age": self.age,
            "dialect": self.dialect,
            "mos": self.mos,
        }
        return [name for name, label in answers.items() if label is not None and label.error]


# ---- the way of a recording through the stages


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """What the manifest gives for a recording; `session` is the recording's name where it gives none."""

    session: str
    speaker: str | None = None
    language: str | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRange:
    """Samples [start, end) of a recording."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of one recording, in samples at its own rate (at most 48 kHz).

    name: of the recording, as shown and sorted by. path: local path or URI of the file that holds it, at `bytes_offset`
    and `bytes_size` in it or in a `row` of it where that is a tar or a table. channel: from 0; None: the mean of all.
    levels: where each channel is a speaker's own, power of the loud moments of each. scale: factor of its samples.
    digests: of the blocks of samples that the window touches, before they are scaled. clips: those that the corpus
    has, in order, where they are kept as they are; none: clips are cut.
    """

    recording_id: str
    name: str
    path: str
    bytes_offset: int | None = None
    bytes_size: int | None = None
    row: int | None = None
    start_sample: int
    end_sample: int
    sample_rate: Hertz
    channel: int | None = None
    levels: tuple[float, ...] = ()
    scale: float = 1.0
    digests: tuple[str, ...] = ()
    clips: tuple[SampleRange, ...] = ()
    source: SourceInfo

    @property
    def seconds(self) -> Seconds:
        return (self.end_sample - self.start_sample) / self.sample_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One clip before corpus labels: what the unit file stores. Bounds are samples of the recording, always.

    `turn` numbers the speaker within the window; `cut` is what ended the clip. Text, words and language are empty
    before transcription, `transcript` and `quality` None before they are measured. `part_of`: the long clip that it was
    joined to, which stands before its parts; "" for others. Either the long one or its parts enter the dataset.
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
    part_of: ClipId = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowResult:
    """What is known of a window, filled stage by stage: a stage returns a new one, and none after an `ending`."""

    window: Window
    dc_offset: float = 0.0
    events: Events | None = None
    separation: Separation | None = None
    candidates: tuple[Candidate, ...] = ()
    ending: Ending | None = None

    def origin(self, clip: Candidate) -> Origin:
        """Whether the sound of a clip, or of a part of it, is that of a separated voice."""
        return "native" if self.separators(clip) is None else "separated"

    def separators(self, clip: Candidate) -> str | None:
        """The models that separated a clip, or parts of it, joined by +; "" where an older run has not named them."""
        if self.separation is None or not self.separation.used:
            return None
        first, rate = self.window.start_sample, self.window.sample_rate
        start, end = (clip.start_sample - first) / rate, (clip.end_sample - first) / rate
        parts = self.separation.used_in or ((0.0, self.window.seconds),)
        names = self.separation.used_by or ("",) * len(parts)
        within = {name for name, (low, high) in zip(names, parts, strict=True) if start < high and low < end}
        return "+".join(sorted(within)) if within else None

    def singing_share(self, clip: Candidate) -> float | None:
        """Share of a clip that is sung, 0..1; None where it is not known."""
        if self.events is None or self.events.singing is None:
            return None
        first, rate = self.window.start_sample, self.window.sample_rate
        start, end = (clip.start_sample - first) / rate, (clip.end_sample - first) / rate
        sung = sum(max(min(end, high) - max(start, low), 0.0) for low, high in self.events.singing)
        return round(min(sung / max(end - start, 1e-9), 1.0), 4)

    @property
    def clips(self) -> tuple[Candidate, ...]:
        """Candidates of a window that no stage has ended."""
        return self.candidates if self.ending is None else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkUnit:
    """One row of the graph: a window of a long recording or several short recordings. Its audio travels beside it.

    bucket: of its sessions, which all lie in one.
    """

    unit_id: str
    bucket: int = 0
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
    """The class; null with an abstention."""
    probability: float | None
    """Probability of the class by the classifier; null where it gives none. [0..1]"""
    reason: str | None
    """Why there is none, such as unsure; or who says it: speaker (all its clips), given (the corpus), recognised."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is known of a clip."""

    attribute: str
    """Such as pitch, rate, gender or emotion."""
    axis: Axis
    """design describes the voice, style this delivery."""
    word: str
    """English word, such as low or female."""
    _: KW_ONLY
    unit: str = ""
    """Unit of `value`; empty for classes."""
    relative_to: str = ""
    """Group that `z` is measured in, such as "female voices, en"."""
    also: str = ""
    """Neighbouring word, where the value lies near the border of two."""
    value: float | None = None
    """Number behind the word, in `unit`; null for classes."""
    z: float | None = None
    """Distance from the middle of the group. [widths of the group]"""
    probability: float | None = None
    """Probability of a class; null for measured values and given ones. [0..1]"""
    source: FactSource = "measured"
    """measured, classified, given by the corpus, or speaker: decided over the speaker's clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerdict:
    """How one claim of a description ended."""

    attribute: str
    """Attribute that the text claims something about."""
    claimed: str
    """Word that the text claims; starts with "not " where it denies it."""
    predicted: str | None
    """The measured word or the classifier's class; null where there is none."""
    verdict: ClaimOutcome
    """pass, fail, abstain: its judges are unsure or disagree, or unjudged: nobody but the writer's own source knows."""
    probability: float | None = None
    """Probability that the claim holds, by the source that decided; null without evidence. [0..1]"""


@dataclass(frozen=True, slots=True)
class FactWord:
    """A fact as a description was written from it."""

    attribute: str
    """Attribute of the fact."""
    word: str
    """Word of the fact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One verified text on one axis."""

    axis: Axis
    """design describes the voice, style this delivery, both describes the two together."""
    granularity: Granularity
    """tags, phrase, sentence or paragraph."""
    language: str
    """Code of the language of the text."""
    text: str
    """The description."""
    generator: str
    """What wrote it, such as template or the model's name."""
    facts: tuple[FactWord, ...] = ()
    """Facts that it was written from."""
    verdicts: tuple[ClaimVerdict, ...] = ()
    """One verdict for each claim of the text."""
    recall: float | None = None
    """Share of its facts that the text names. [0..1]"""
    repaired: bool = False
    """Whether a failed claim was replaced by a second request."""
    unread: tuple[str, ...] = ()
    """Parts of the text that could not be read: what they claim is not verified."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A clip that may serve as the reference of another, and its cosine to it, 0..1."""

    clip_id: ClipId
    """The other clip."""
    similarity: float
    """Cosine of the two speaker vectors. [-1..1]"""


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
    """Stage of the curriculum. [1..3]"""
    modes: tuple[Mode, ...]
    """Modes that the clip can teach there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlace:
    """Where the bytes of a clip lie: a member of a tar below OUT. `sha256` is of those bytes."""

    shard: str
    """Tar file below OUT."""
    offset: int
    """First byte in it. [bytes]"""
    size: int
    """Length in it. [bytes]"""
    sha256: str | None
    """SHA-256 of those bytes, in hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardMetadata:
    """What a clip's audio was cut with: the index has it, and the clip's `.json` member in the shard."""

    clip_id: ClipId
    """Name of the clip, unique in the dataset; also the key of its shard members."""
    recording_id: str
    """Hash of the recording's content that the clip is from."""
    session: str
    """Session of the manifest, or the recording's name."""
    position: int | None
    """Number of the clip within its session, from 0; null for clips that are not kept."""
    start_sample: int
    """First sample in the recording, at `sample_rate`. [samples]"""
    end_sample: int
    """Sample after the last one. [samples]"""
    channel: int | None
    """Channel of the recording that it is from, from 0; null for the mean of all."""
    sample_rate: Hertz
    """Rate of the clip's audio. [Hz]"""
    duration: Seconds
    """Length of the clip. [s]"""
    text: str
    """What is said: as corrected or confirmed by a person, else the given text's part, else as recognised."""
    words: tuple[Word, ...]
    """Words of it with their times."""
    text_source: TextSource = "recognised"
    """Where the text is from: given with the recording, recognised, or corrected (or confirmed) by a person."""
    given_agreement: float | None = None
    """Share of its characters that the given text and the recognised one have in common; null without one. [0..1]"""
    language: str
    """Code of the spoken language."""
    language_probability: float
    """Probability, by the audio of the clip alone, of the language that was recognised. [0..1]"""
    speaker: str | None
    """Speaker of a correction or the manifest, or the channel where each has its own; null where none is known."""
    turn: int
    """Number of the speaker within the work window."""
    origin: Origin
    """native, separated from its background, or synthetic."""
    separated_by: str | None = None
    """Model that separated it, several joined by +; null where none did."""
    cut: CutBy
    """What ended the clip: pause, speaker, overlap, language, forced, or given where it is the corpus's own."""
    quality: Quality
    """Measures of the audio before its gain."""
    transcript: TranscriptChecks
    """Measures of the transcript."""
    licence: str | None
    """Licence of the manifest; null where it names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip(ShardMetadata):
    """A row of `clips.parquet`: its metadata in the shard, labels that may be added or change later, its place.

    `parents` names the clips that a synthetic one was made from.
    """

    path: str = ""
    """Path of the recording that it is from, as the manifest or folder gives it."""
    recognised_text: str | None = None
    """Text as recognised, where the clip's is given or corrected."""
    text_differences: tuple[TextDifference, ...] = ()
    """Where the given text and the recognised one are not the same."""
    given: GivenLabels | None = None
    """What the corpus says of it, word for word; null where it says nothing."""
    predicted_wer: float | None = None
    """Word error rate that the text probably has; null where none is predicted for the recogniser. [0..]"""
    distillmos: float | None = None
    """Quality by DistillMOS, a second opinion beside `quality`; null where the labeller mos did not run. [1..5]"""
    cluster: str | None = None
    """Name of the speaker's cluster over the whole corpus."""
    prosody: Prosody | None = None
    """Measures of pitch, level, pace and voice; null where the labeller abstained."""
    expressiveness: float | None = None
    """Score over the whole corpus, relative to the speaker and the language. [z]"""
    expressiveness_percentile: float | None = None
    """Rank of that score among all scored clips. [0..1]"""
    gender: ClassColumn | None = None
    """How the voice sounds: female or male."""
    emotion: ClassColumn | None = None
    """Emotion of the delivery."""
    age: ClassColumn | None = None
    """Age band of the voice."""
    dialect: ClassColumn | None = None
    """Dialect of Chinese, by its code, zh for none that has a tag; null for clips in other languages."""
    singing_share: float | None = None
    """Share of the clip that is sung; null where it was not measured. [0..1]"""
    style: ClassColumn | None = None
    """Style of the delivery: the corpus's own word, or song where so much is sung."""
    facts: tuple[Fact, ...] = ()
    """What is known of the clip in words, with the numbers behind them."""
    descriptions: tuple[Description, ...] = ()
    """Verified texts on voice and style."""
    references: tuple[Reference, ...] | None = None
    """Clips of the same speaker that may serve as its reference."""
    no_reference: str | None = None
    """Why there is no reference."""
    parents: tuple[ClipId, ...] = ()
    """Clips that a synthetic clip was made from."""
    modes: tuple[Mode, ...] | None = None
    """Training modes that the clip can teach in any stage."""
    stages: tuple[CurriculumStage, ...] | None = None
    """Stages of the curriculum that the clip may enter."""
    stage_modes: tuple[StageModes, ...] | None = None
    """Modes that it can teach in each of them."""
    shard: str
    """Tar file below OUT that holds the clip's audio."""
    offset: int
    """First byte of the audio in it. [bytes]"""
    size: int
    """Length of the audio in it. [bytes]"""
    sha256: str | None
    """SHA-256 of those bytes, in hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedClip(Clip):
    """A row of `rejected.parquet`: a clip and its `Ending`. Its audio lies in the unit's file below `work/`."""

    stage: str
    """Stage whose rule dropped the clip."""
    reason: str
    """Code of the rule."""
    value: float | None = None
    """Measured value."""
    threshold: float | None = None
    """Threshold that it missed."""


# Before it is finished a recording is planned; a file that turned out to be none is other, and has no row in the end.
RecordingState = Literal["planned", "other", "kept", "kept_in_part", "rejected", "duplicate", "unreadable"]
KEPT_STATES: tuple[RecordingState, ...] = ("kept", "kept_in_part")
"""Of recordings of which clips were kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioTrack:
    """An audio track of a file that has several."""

    index: int
    """Number of the stream in the file, from 0."""
    codec: str
    """Codec of the track."""
    channels: int
    """Channels of the track."""
    sample_rate: Hertz
    """Rate of the track. [Hz]"""
    language: str
    """Language as the file names it; empty where it names none."""
    title: str
    """Title as the file names it; empty where it names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingWarning:
    """Something that is wrong with a file that could be read."""

    kind: WarningKind
    """Code of the warning."""
    detail: str
    """What was met, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedWindow:
    """A stretch of a recording that ended at a stage before clips were cut from it."""

    start: Seconds
    """Start in the recording. [s]"""
    end: Seconds
    """End in the recording. [s]"""
    channel: int | None
    """Channel, from 0; null for the mean of all."""
    stage: str
    """Stage at which it ended."""
    reason: str
    """Code of why it ended there."""
    value: float | None
    """Measured value behind the reason."""
    threshold: float | None
    """Threshold that it missed."""
    detail: str
    """More about the reason, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A row of `recordings.parquet`: one input with its one terminal state."""

    recording_id: str | None
    """Hash of the recording's content; null where it could not be read."""
    path: str
    """Path as the manifest or folder gives it."""
    session: str
    """Session of the manifest, or the recording's name."""
    state: RecordingState
    """kept, kept_in_part (some of its windows were lost), rejected, duplicate or unreadable."""
    stage: str | None = None
    """Stage at which it ended; null where clips of it were kept."""
    reason: str | None = None
    """Code of why it ended there."""
    value: float | None = None
    """Measured value behind the reason."""
    threshold: float | None = None
    """Threshold that it missed."""
    detail: str = ""
    """More about the reason, in words."""
    duration: Seconds | None = None
    """Length of the recording. [s]"""
    sample_rate: Hertz | None = None
    """Rate of the recording. [Hz]"""
    channels: int | None = None
    """Channels of the recording."""
    channels_read: str | None = None
    """What was read of them: mix (their mean), split (each channel is a speaker), or the channel's number, from 0."""
    codec: str | None = None
    """Codec of the file."""
    other_tracks: tuple[AudioTrack, ...] = ()
    """Audio tracks of the file that were not read."""
    warnings: tuple[RecordingWarning, ...] = ()
    """What is wrong with the file though it could be read."""
    num_clips: int = 0
    """Clips that were cut from it."""
    num_kept: int = 0
    """Clips of it that are in clips.parquet."""
    seconds_lost: Seconds = 0.0
    """Length of the windows with speech that ended before clips were cut. [s]"""
    ended_windows: tuple[EndedWindow, ...] = ()
    """Windows that ended before clips were cut, also those without speech, with why each ended."""
    separated: bool | None = None
    """Whether its voice was separated from the background."""
    separation: str | None = None
    """Why it was separated, or why not."""
    licence: str | None = None
    """Licence of the manifest; null where it names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """A row of `latents.parquet`: a clip's latent frames in a shard of latents, and the space that they belong to."""

    clip_id: ClipId
    """The clip."""
    shard: str
    """Tar file below OUT that holds the latents."""
    offset: int
    """First byte of the latents in it. [bytes]"""
    size: int
    """Length of the latents in it. [bytes]"""
    sha256: str
    """SHA-256 of those bytes, in hex."""
    num_frames: int
    """Latent frames of the clip."""
    latent_space: str
    """Fingerprint of the AudioVAE that encoded it."""


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
