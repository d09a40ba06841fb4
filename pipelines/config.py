"""Configuration of the two jobs. Of `annotate`: what labels depend on, what selection uses, how it runs.

Only `label` decides which clips are cut and how they are transcribed; each labeller of `voice_attributes` and each
label of `corpus_labels` can be changed or added on a finished dataset. Changing `corrections`, `select`, `texts`,
`write` or `run` runs no model again.
"""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from annotation.audio.distillmos import MosConfig
from annotation.audio.events import EventsConfig
from annotation.audio.quality import QualityConfig
from annotation.audio.segmentation import SegmentationConfig
from annotation.audio.separation import SeparationConfig
from annotation.corpus.eligibility import ModesConfig
from annotation.corpus.expressiveness import ExpressivenessConfig
from annotation.corpus.references import ReferencesConfig
from annotation.corpus.speaker_clusters import ClusterConfig
from annotation.corpus.speaker_traits import TraitsConfig
from annotation.descriptions.config import DescriptionsConfig
from annotation.descriptions.facts import FactsConfig
from annotation.speech.aligners.config import AlignmentConfig
from annotation.speech.transcription import TranscriptionConfig
from annotation.voice.age import AgeConfig
from annotation.voice.dialect import DialectConfig
from annotation.voice.emotion import EmotionConfig
from annotation.voice.gender import GenderConfig
from annotation.voice.prosody import ProsodyConfig
from annotation.voice.speaker import SpeakerConfig
from voxmill.core.config import Config, StoredPath
from voxmill.data.conditions import Condition
from voxmill.data.schemas import CLIPS, METADATA_COLUMNS
from voxmill.data.scripts import ChineseScript

LABELS_OF_A_CLIP = (
    *("path", "given", "predicted_wer", "distillmos", "prosody", "gender", "emotion", "age", "dialect"),
    *("singing_share", "style"),
)
SELECTABLE = (*(name for name in METADATA_COLUMNS if name != "position"), *LABELS_OF_A_CLIP)
"""Columns of the index that are known of a clip by itself, before the steps over the whole corpus."""
DESCRIBABLE = (*SELECTABLE, "cluster", "expressiveness", "expressiveness_percentile")
"""Columns that are known of a clip before it is described."""


class LabelConfig(Config):
    """Everything that a label can depend on."""

    renamed: ClassVar[dict[str, str]] = {"transcription.word_times": "alignment.letters"}

    events: EventsConfig = EventsConfig()
    separation: SeparationConfig = SeparationConfig()
    segmentation: SegmentationConfig = SegmentationConfig()
    transcription: TranscriptionConfig = TranscriptionConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    quality: QualityConfig = QualityConfig()
    segmented: bool = False
    """Keep the clips of a corpus as they are: segments of its recordings, or whole recordings that have none."""
    channels: Literal["auto", "mix", "split"] | Annotated[int, Field(ge=0)] = "auto"
    """Each of two that has a speaker of its own, the centre of film sound, else the mean (auto); or one, from 0."""
    window_seconds: float = Field(300.0, gt=30, validate_default=True)
    """Longer recordings are cut into windows of at most this many seconds, at silences."""
    unit_seconds: float = Field(60.0, gt=1)
    """Recordings are grouped into work units up to this length, in seconds; not given, 1800 where there are GPUs."""

    @field_validator("window_seconds")
    @classmethod
    def _holds_the_longest_clip(cls, seconds: float, info: ValidationInfo) -> float:
        segmentation = info.data.get("segmentation")
        if segmentation is None:
            return seconds
        if segmentation.max_seconds > seconds:
            raise ValueError(
                f"shorter than segmentation.max_seconds = {segmentation.max_seconds:g}; raise it above that"
            )
        # The default ones are no demand: what fits into a window is joined.
        longest = max(segmentation.lengths, default=0.0)
        if longest > seconds and "lengths" in segmentation.model_fields_set:
            raise ValueError(f"shorter than the {longest:g} s of segmentation.lengths; raise it above that")
        return seconds


Labeller = Literal["prosody", "speaker", "gender", "emotion", "age", "dialect", "mos"]
LABELLERS: tuple[Labeller, ...] = get_args(Labeller)
USUAL_LABELLERS: tuple[Labeller, ...] = ("prosody", "speaker", "gender", "emotion", "age")


class VoiceAttributesConfig(Config):
    """Labels of every clip's voice, each labeller by itself: one that changes is run again, the others are not."""

    labellers: tuple[Labeller, ...] = USUAL_LABELLERS
    """Which are run; not given, dialect too where it has a model; mos, a second opinion on quality, if it is named."""
    prosody: ProsodyConfig = ProsodyConfig()
    speaker: SpeakerConfig = SpeakerConfig()
    gender: GenderConfig = GenderConfig()
    emotion: EmotionConfig = EmotionConfig()
    age: AgeConfig = AgeConfig()
    dialect: DialectConfig = DialectConfig()
    mos: MosConfig = MosConfig()

    @model_validator(mode="before")
    @classmethod
    def _with_dialect(cls, values: object) -> object:
        if isinstance(values, dict) and "labellers" not in values:
            dialect = values.get("dialect")
            model = dialect.get("model") if isinstance(dialect, dict) else getattr(dialect, "model", None)
            if model is not None:
                return {**values, "labellers": (*USUAL_LABELLERS, "dialect")}
        return values


CorpusLabel = Literal["speakers", "expressiveness", "references", "descriptions"]


class CorpusLabelsConfig(Config):
    """Labels that need the whole corpus: who speaks, how expressively, which clips can be references of others."""

    labels: tuple[CorpusLabel, ...] = ("speakers", "expressiveness", "references", "descriptions")
    """Which labels over the whole corpus are made."""
    norms: Literal["keep", "refit"] = "keep"
    """keep: what a finished dataset was measured by stays, so that more recordings change no other clip's labels."""
    speakers: ClusterConfig = ClusterConfig()
    traits: TraitsConfig = TraitsConfig()
    expressiveness: ExpressivenessConfig = ExpressivenessConfig()
    describe: str | None = None
    """Clips that get descriptions: all, expressive, or a condition as in `select.where`; null: all, or by top_share."""
    references: ReferencesConfig = ReferencesConfig()
    facts: FactsConfig = FactsConfig()
    descriptions: DescriptionsConfig = DescriptionsConfig()
    modes: ModesConfig = ModesConfig()

    @model_validator(mode="after")
    def _describes_something(self) -> "CorpusLabelsConfig":
        if self.describe == "expressive" and not self._has_rule:
            raise ValueError(
                "describe = expressive, but by no rule; set expressiveness.top_share, such as to 0.3"
                if "expressiveness" in self.labels
                else "describe = expressive, but labels has no expressiveness; add it"
            )
        if self.describe not in (None, "expressive") and self._has_rule:
            raise ValueError(
                f"describe = {self.describe}, but expressiveness.top_share or threshold chooses, too; drop either"
            )
        if self.describe not in (None, "all", "expressive"):
            try:
                Condition(self.describe, DESCRIBABLE, CLIPS.names)
            except ValueError as error:
                raise ValueError(f"describe is neither all nor expressive, and as a condition it {error}") from None
        return self

    @property
    def _has_rule(self) -> bool:
        rule = self.expressiveness
        return "expressiveness" in self.labels and (rule.top_share is not None or rule.threshold is not None)

    def screen(self) -> Literal["all", "expressive"] | Condition:
        """Which clips get descriptions."""
        if self.describe == "expressive" or (self.describe is None and self._has_rule):
            return "expressive"
        return "all" if self.describe in (None, "all") else Condition(self.describe, DESCRIBABLE, CLIPS.names)


class TranscriptThresholds(Config):
    """Thresholds on single measures of a transcript, for recognisers of which no fit predicts the word error rate."""

    max_compression_ratio: float | None = 2.4
    """Highest zlib compression ratio of the text; higher ones repeat themselves."""
    max_no_speech_probability: float | None = 0.8
    """Highest probability (0..1) that the recogniser gives to no speech."""
    min_mean_log_probability: float | None = -1.0
    """Lowest mean log probability of the recogniser's tokens."""
    max_repeated_ngram: float | None = 0.3
    """Largest share (0..1) of the trigrams of the text that are its most frequent one."""
    min_characters_per_second: float | None = 2.0
    """Slowest reading, in letters of an alphabet a second; a character of Chinese counts as 3, a kana as 2."""
    max_characters_per_second: float | None = 35.0
    """Fastest reading, in letters a second, likewise."""
    min_language_probability: float | None = 0.5
    """Lowest probability (0..1) of the detected language."""


class SelectConfig(Config):
    """Thresholds, applied late. None switches a rule off."""

    min_seconds: float | None = 2.0
    """Shortest clip, in seconds."""
    max_seconds: float | None = 300.0
    """Longest clip, in seconds."""
    min_dnsmos_ovr: float | None = 2.0
    """Lowest DNSMOS overall (1..5)."""
    min_distillmos: float | None = None
    """Lowest DistillMOS (1..5), of clips that the labeller mos has scored."""
    min_snr_db: float | None = 5.0
    """Lowest signal-to-noise ratio, in dB."""
    max_clipping: float | None = 0.01
    """Largest share of clipped samples (0..1)."""
    min_bandwidth_hz: float | None = 3000.0
    """Lowest effective bandwidth, in Hz."""
    max_dc_offset: float | None = 0.1
    """Largest mean of the samples, as a share of full scale."""
    wer_fit: str | None = "shipped"
    """What predicts word error rates: shipped (of Whisper base), a file of `voxmill fit-trust`, or null for nothing."""
    max_predicted_wer: float | None = 0.28
    """Highest word error rate (0..1 and more) that is predicted of a transcript."""
    without_fit: TranscriptThresholds = TranscriptThresholds()
    """Where nothing predicts word error rates, these thresholds on single measures apply; the same below are off."""
    max_compression_ratio: float | None = None
    """Highest zlib compression ratio of the text, whether its word error rate is predicted or not."""
    max_no_speech_probability: float | None = None
    """Highest probability (0..1) that the recogniser gives to no speech, likewise."""
    min_mean_log_probability: float | None = None
    """Lowest mean log probability of the recogniser's tokens, likewise."""
    max_repeated_ngram: float | None = None
    """Largest share (0..1) of the trigrams of the text that are its most frequent one, likewise."""
    min_characters_per_second: float | None = None
    """Slowest reading, in letters of an alphabet a second as above, likewise."""
    max_characters_per_second: float | None = None
    """Fastest reading, in letters of an alphabet a second, likewise."""
    min_language_probability: float | None = None
    """Lowest probability (0..1) of the detected language, likewise."""
    min_language_confidence: float | None = 0.75
    """Lowest probability (0..1) of a clip's language by its sound, the other clips and texts in two near ones."""
    text_language_must_agree_above: float | None = 0.8
    """Where the text's detected language is more probable than this (0..1), it must be the audio's."""
    max_singing_share: float | None = None
    """Largest share (0..1) of a clip that is sung."""
    min_given_agreement: float | None = 0.6
    """Smallest share (0..1) of characters that a given text and the recognised one have in common."""
    max_text_differences: int | None = 0
    """Most places of a clip in which its recording and the given text probably part, by words that were surely said."""
    allow_hallucinations: bool = False
    """Keep texts that recognisers are known to invent, such as credits of subtitles."""
    allow_forced_cuts: bool = False
    """Keep clips that had to be cut where there was no pause."""
    where: str | None = None
    """Condition over columns of the index that kept clips meet, such as language == 'en' and quality.snr_db > 20."""

    @field_validator("where", mode="before")
    @classmethod
    def _is_a_condition(cls, text: object) -> object:
        if text is None:
            return None
        if not isinstance(text, str):
            raise ValueError("is no text for YAML; put the whole condition in quotes of the kind that it does not have")
        Condition(text, SELECTABLE, CLIPS.names)
        return text

    def condition(self) -> Condition | None:
        """`where`, to ask of a row of the index."""
        return None if self.where is None else Condition(self.where, SELECTABLE, CLIPS.names)


class TextsConfig(Config):
    """How texts are spelt, applied late. Both scripts of Chinese are compared as one, whatever is written."""

    chinese: ChineseScript | None = None
    """Recognised Chinese, dialects too, in simplified or traditional characters (OpenCC); null: as recognised."""
    given_too: bool = False
    """Also texts that are given, which otherwise stay as they are; corrected ones always do."""


class WriteConfig(Config):
    """Shards: sessions are kept whole until a shard would pass `shard_megabytes`."""

    shard_megabytes: float = Field(256.0, gt=0)
    """Size of a shard, in 1e6 bytes; a session is kept whole until its shard would exceed it."""
    buckets: int | None = Field(None, ge=1, le=65_536)
    """Parts that a new dataset is divided into, sessions whole; null: one for each 16 hours. Fixed from then on."""
    shard_by: Literal["language"] | None = None
    """language: a shard has clips of one language, which its name tells; null: of all languages of its sessions."""


class RunConfig(Config):
    """How the job runs; nothing here changes the dataset."""

    renamed: ClassVar[dict[str, str]] = {"askers": "concurrent_requests", "gpu_share": "gpus"}

    workers: int | None = Field(None, ge=1)
    """Processes on CPUs at most, in each pool; null: as many as the cluster has CPUs, also later."""
    threads: int = Field(1, ge=1)
    """CPU threads of each model."""
    gpus: int | None = Field(None, ge=0)
    """GPUs at most, each with a process that holds all models; null: those of the cluster, also later; 0: none."""
    pools: bool | None = Field(None)
    """Three pools of processes (prepare, models, measure) in place of one; null: where there are GPUs."""
    concurrent_requests: int = Field(8, ge=1)
    """Requests to a description endpoint in progress at once."""
    progress: bool = True
    """Show progress bars."""


class AnnotateConfig(Config):
    """The recipe of `annotate`."""

    renamed: ClassVar[dict[str, str]] = {
        "voices": "voice_attributes",
        "control": "corpus_labels",
        "label.segmentation.min_seconds": "select.min_seconds",
    }

    corrections: StoredPath | None = None
    """A CSV file of what people correct of clips; null: as the dataset remembers it from the run before."""
    label: LabelConfig = LabelConfig()
    voice_attributes: VoiceAttributesConfig = VoiceAttributesConfig()
    corpus_labels: CorpusLabelsConfig = CorpusLabelsConfig()
    select: SelectConfig = SelectConfig()
    texts: TextsConfig = TextsConfig()
    write: WriteConfig = WriteConfig()
    run: RunConfig = RunConfig()


class EncodeConfig(Config):
    """The recipe of `encode`; seconds are of audio. The first two decide what goes into which file."""

    unit_seconds: float = Field(3600.0, gt=0)
    """Seconds of audio in a latent shard at most; an hour is 11.5 MB."""
    batch_seconds: float = Field(120.0, gt=0)
    """Seconds of padded audio that the encoder gets at once."""
    replace: bool = Field(False)
    """Encode again with another AudioVAE; the old latents are removed."""
    workers: int | None = Field(None, ge=1)
    """Replicas of the encoder at most; null: one for each GPU, or else for each CPU, as the cluster grows."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of each replica; null: 1, or where it has a GPU that GPU's share of the CPUs, to decode for it."""
    progress: bool = True
    """Show progress bars."""
