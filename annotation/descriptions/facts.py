"""Words for measured values: 'low', 'fast', 'lively', each beside the number that it stands for.

A number is much or little only among its like: pitch among voices of the same gender that speak the language, rate
among speakers of the language. `Norms` hold the middle and the width of each group. They start from published or
assumed values (`_PRIORS`) and move to the corpus's own as its speakers grow in number; speakers are counted, not clips,
so that one monotonous voice with ten thousand clips does not become the norm. Five levels: two steps of one
standard deviation around a middle of one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from annotation.descriptions.voice_facts import VoiceFactsConfig, is_creaky, voice_facts
from voxmill.core.config import Config
from voxmill.data.languages import base_language
from voxmill.data.records import Axis, Fact, FactSource, Prosody

Scale = Literal["pitch", "intonation", "rate", "energy", "clarity"]

# From -2 to 2. English words are the facts' own; other languages and wordings are in `lexicon/`.
LEVELS: dict[str, tuple[str, str, str, str, str]] = {
    "register": ("very low", "low", "medium", "high", "very high"),
    "pitch": ("very low", "low", "medium", "high", "very high"),
    "intonation": ("monotone", "even", "moderate", "lively", "very lively"),
    "rate": ("very slow", "slow", "moderate", "fast", "very fast"),
    "energy": ("very soft", "soft", "moderate", "strong", "very strong"),
}
PAUSES = ("few", "some", "many")
TEXTURES = ("rough", "breathy", "clear", "creaky")
AXES: dict[str, Axis] = {
    "gender": "design",
    "age": "design",
    "register": "design",
    "texture": "design",
    "accent": "design",
    "dialect": "design",
    "scenario": "design",
    "pitch": "style",
    "intonation": "style",
    "rate": "style",
    "energy": "style",
    "pauses": "style",
    "emotion": "style",
    "style": "style",
    "emphasis": "style",
    "dynamics": "style",
    "ending": "style",
    "phonation": "style",
    "channel": "style",
    "laughter": "style",
}
FREE_WORDS = ("accent", "style", "emphasis")
"""Attributes of which corpora give any words; no lexicon has them."""

# Articulation rates, syllables a second: Pellegrino, Coupé, Marsico 2011 (Language 87:3), read texts.
_RATES = {"en": 6.19, "fr": 7.18, "de": 5.97, "it": 6.99, "ja": 7.84, "zh": 5.18, "es": 7.82, "vi": 5.22}
# Other languages: the mean of those, and a common speed of letters where syllables cannot be counted (assumed).
_RATE, _CHARACTER_RATE = 6.5, 12.0
# (middle, width); pitch and rate are on a logarithmic scale, in semitones and in natural logarithms. Pitch is common
# knowledge of phonetics; the rest are middles over the sample voices (benchmarks/speakers.py) and their spread.
_PITCH = {"female": (200.0, 2.7), "male": (118.0, 2.7), "": (155.0, 5.0)}
_CLARITY = {"female": (12.5, 2.0), "male": (7.5, 2.0), "": (10.5, 3.0)}
_PRIORS = {"intonation": (3.0, 0.8), "energy": (-16.0, 3.0)}
_RATE_WIDTH = 0.18


class FactsConfig(Config):
    """`shrinkage` is in speakers: a group of so many moves half way from the prior to its own middle.

    `edge` is in standard deviations: a value so near to the border of two levels stands for either.
    """

    shrinkage: float = 10.0
    """A group of this many speakers moves half way from the prior to its own median."""
    edge: float = 0.2
    """A value this close to the border of two levels, in standard deviations, stands for either."""
    few_pauses: float = 0.04
    """A share of silence (0..1) below this reads as few pauses."""
    many_pauses: float = 0.18
    """A share of silence (0..1) above this reads as many pauses."""
    voice: VoiceFactsConfig = VoiceFactsConfig()


_UNIT = 1 << 20
"""Values are summed as whole parts of this many a unit: sums of integers do not depend on any order."""


@dataclass(frozen=True, slots=True)
class VoiceSums:
    """Of one group: voices and the sum of their medians, clips, and the sums of their values and squares."""

    voices: int
    medians: int
    clips: int
    values: int
    squares: int

    def __add__(self, other: "VoiceSums") -> "VoiceSums":
        return VoiceSums(
            self.voices + other.voices,
            self.medians + other.medians,
            self.clips + other.clips,
            self.values + other.values,
            self.squares + other.squares,
        )

    def middle_and_width(self) -> tuple[float, float, int]:
        """The mean of the voices' medians, the spread of all clips around it, and the number of voices.

        Within and between speakers together: what a listener to the whole corpus has in the ear.
        """
        middle = self.medians / self.voices / _UNIT
        # In whole numbers up to the last step: squares of pitches are much larger than their spread.
        centre = self.medians // self.voices
        spread = (self.squares - 2 * centre * self.values + self.clips * centre * centre) / self.clips
        return middle, float(np.sqrt(max(spread, 0))) / _UNIT, self.voices


def sum_voices(
    prosody: Sequence[Prosody],
    speakers: Sequence[str],
    genders: Sequence[str | None],
    languages: Sequence[str],
) -> dict[str, VoiceSums]:
    """Sums by `scale/gender/language`, columns each [N]; a clip without a speaker's name counts for nothing."""
    by_group: dict[str, dict[str, list[float]]] = {}
    for measured, speaker, gender, language in zip(prosody, speakers, genders, languages, strict=True):
        if not speaker:
            continue
        for scale, value in scaled(measured).items():
            by_group.setdefault(_key(scale, gender, language), {}).setdefault(speaker, []).append(value)
    sums = {}
    for key, voices in by_group.items():
        whole = [round(value * _UNIT) for values in voices.values() for value in values]
        sums[key] = VoiceSums(
            voices=len(voices),
            medians=sum(round(float(np.median(values)) * _UNIT) for values in voices.values()),
            clips=len(whole),
            values=sum(whole),
            squares=sum(value * value for value in whole),
        )
    return sums


class Norms:
    """Middle and width of each scale in each group of (gender, language), priors included.

    `corpus` maps `scale/gender/language` to (middle, width, speakers); plain data, so that it can be kept with a run.
    """

    def __init__(self, config: FactsConfig, corpus: Mapping[str, tuple[float, float, int]] | None = None):
        self.config = config
        self.corpus = dict(corpus or {})
        self._known: dict[tuple[str, ...], tuple[float, float]] = {}

    @classmethod
    def fit(
        cls,
        config: FactsConfig,
        prosody: Sequence[Prosody],
        speakers: Sequence[str],
        genders: Sequence[str | None],
        languages: Sequence[str],
    ) -> "Norms":
        """Norms of a corpus, columns each [N]; a clip without a speaker's name counts for nothing."""
        return cls.from_sums(config, sum_voices(prosody, speakers, genders, languages))

    @classmethod
    def from_sums(cls, config: FactsConfig, sums: Mapping[str, VoiceSums]) -> "Norms":
        """Norms from the sums of all parts of a corpus."""
        return cls(config, {key: one.middle_and_width() for key, one in sorted(sums.items())})

    def of(self, scale: Scale, gender: str | None, language: str, unit: str = "") -> tuple[float, float]:
        """(middle, width) of a group on its own scale; the width is positive."""
        group = (scale, gender or "", language, unit)
        if group not in self._known:
            self._known[group] = self._of(scale, gender, language, unit)
        return self._known[group]

    def _of(self, scale: Scale, gender: str | None, language: str, unit: str) -> tuple[float, float]:
        prior_middle, prior_width = _prior(scale, gender, language, unit)
        middle, width, speakers = self.corpus.get(_key(scale, gender, language), (prior_middle, prior_width, 0))
        trust = speakers / (speakers + self.config.shrinkage)
        own = max(width, 0.25 * prior_width)
        return (
            trust * middle + (1 - trust) * prior_middle,
            float(np.exp(trust * np.log(own) + (1 - trust) * np.log(prior_width))),
        )


def scaled(prosody: Prosody) -> dict[Scale, float]:
    """The measures of a clip on the scales that levels are cut from; what was not measured is left out.

    pitch: semitones over 1 Hz. intonation: semitones. rate: logarithm of units a second, pauses left out. energy: vocal
    effort as minus the spectral tilt in dB (level depends on the microphone's distance; tilt on its colour as well, so
    it is only good within recordings of one kind). clarity: harmonics to noise, dB.
    """
    measures: dict[Scale, float] = {}
    if prosody.f0_median_hz is not None:
        measures["pitch"] = 12 * float(np.log2(prosody.f0_median_hz))
    if prosody.f0_std_semitones is not None:
        measures["intonation"] = prosody.f0_std_semitones
    if prosody.articulation_rate is not None:
        measures["rate"] = float(np.log(prosody.articulation_rate))
    if prosody.spectral_tilt_db is not None:
        measures["energy"] = -prosody.spectral_tilt_db
    if prosody.hnr_db is not None:
        measures["clarity"] = prosody.hnr_db
    return measures


def _group(scale: Scale, gender: str | None) -> str:
    """The gender that a scale is relative to: pitch and clarity differ between women and men, the others little."""
    return (gender or "") if scale in ("pitch", "clarity") else ""


def _key(scale: Scale, gender: str | None, language: str) -> str:
    return f"{scale}/{_group(scale, gender)}/{base_language(language)}"


def _prior(scale: Scale, gender: str | None, language: str, unit: str) -> tuple[float, float]:
    group = _group(scale, gender)
    if scale == "pitch":
        hertz, width = _PITCH.get(group, _PITCH[""])
        return 12 * float(np.log2(hertz)), width
    if scale == "clarity":
        return _CLARITY.get(group, _CLARITY[""])
    if scale == "rate":
        usual = _CHARACTER_RATE if unit == "characters" else _RATES.get(base_language(language), _RATE)
        return float(np.log(usual)), _RATE_WIDTH
    return _PRIORS[scale]


def level(z: float) -> int:
    """-2 to 2; the middle level is one standard deviation wide, its neighbours too."""
    return min(max(math.floor(z + 0.5), -2), 2)


def describe_clip(
    prosody: Prosody,
    norms: Norms,
    language: str,
    gender: tuple[str, float] | None = None,
    age: tuple[str, float] | None = None,
    emotion: tuple[str, float] | None = None,
    given: Mapping[str, str] | None = None,
    voice: Prosody | None = None,
) -> list[Fact]:
    """All facts of a clip; what was not measured, or what a classifier abstained from, is left out.

    Args:
        norms: of the corpus, or `Norms(FactsConfig())` for the priors alone.
        gender, age, emotion: (class, probability) of a classifier that did not abstain.
        given: what the corpus says, by attribute; it counts, whatever a classifier says.
        voice: the measures with those of all clips of the speaker where there are such, for what is lasting: register
            and texture. None: the clip stands for its speaker.
    """
    known = given or {}
    facts = given_facts(known) + [
        Fact(name, AXES[name], answer[0], probability=round(answer[1], 4), source="classified")
        for name, answer in (("gender", gender), ("age", age), ("emotion", emotion))
        if answer is not None and name not in known
    ]
    sex = known.get("gender") or (gender[0] if gender else None)
    raw = _raw(prosody)
    for scale, z in _distances(prosody, norms, sex, language).items():
        if scale in LEVELS:
            facts.append(_levelled(scale, z, raw[scale], sex, language, norms.config))
    facts += _voice_facts(voice or prosody, norms, sex, language, "measured" if voice is None else "speaker")
    if prosody.rate is not None:
        facts.append(_pauses(prosody, norms.config))
    facts += [fact for fact in voice_facts(prosody, norms.config.voice) if fact.attribute not in known]
    return in_order(facts)


def _raw(prosody: Prosody) -> dict[Scale, tuple[float | None, str]]:
    """The measures as they are shown: (value, unit)."""
    return {
        "pitch": (prosody.f0_median_hz, "Hz"),
        "intonation": (prosody.f0_std_semitones, "semitones"),
        "rate": (prosody.articulation_rate, f"{prosody.rate_unit}/s"),
        "energy": (prosody.spectral_tilt_db, "dB spectral tilt"),
        "clarity": (prosody.hnr_db, "dB harmonics to noise"),
    }


def _distances(prosody: Prosody, norms: Norms, gender: str | None, language: str) -> dict[Scale, float]:
    """How far the measures lie from the middle of their group, in its widths."""
    distances: dict[Scale, float] = {}
    for scale, value in scaled(prosody).items():
        middle, width = norms.of(scale, gender, language, prosody.rate_unit)
        distances[scale] = (value - middle) / width
    return distances


def _voice_facts(voice: Prosody, norms: Norms, gender: str | None, language: str, source: FactSource) -> list[Fact]:
    """What is lasting: how high a voice is among those of its gender that speak the language, and its texture."""
    z_of, raw = _distances(voice, norms, gender, language), _raw(voice)
    facts = []
    if "pitch" in z_of:
        pitch = _levelled("pitch", z_of["pitch"], raw["pitch"], gender, language, norms.config)
        facts.append(replace(pitch, attribute="register", axis=AXES["register"], source=source))
    if is_creaky(voice, norms.config.voice):
        share = _rounded(voice.creak_share)
        facts.append(Fact("texture", AXES["texture"], "creaky", value=share, unit="share of time", source=source))
    elif texture := _texture(z_of, voice, norms.config.voice):
        number, unit = raw["clarity"]
        facts.append(
            Fact(
                "texture",
                "design",
                texture,
                value=_rounded(number),
                unit=unit,
                z=round(z_of["clarity"], 3),
                relative_to=_relative_to("clarity", gender, language),
                source=source,
            )
        )
    return facts


def in_order(facts: Iterable[Fact]) -> list[Fact]:
    """Facts in the order of their attributes."""
    return sorted(facts, key=lambda fact: list(AXES).index(fact.attribute))


def given_facts(given: Mapping[str, str]) -> list[Fact]:
    """What a corpus says of a clip, by attribute, as facts."""
    return [Fact(name, AXES[name], word, source="given") for name, word in given.items()]


def _levelled(
    scale: Scale, z: float, raw: tuple[float | None, str], gender: str | None, language: str, config: FactsConfig
) -> Fact:
    words = LEVELS[scale]
    here, near = level(z), {level(z - config.edge), level(z + config.edge)}
    also = next((words[other + 2] for other in sorted(near) if other != here), "")
    return Fact(
        scale,
        AXES[scale],
        words[here + 2],
        value=_rounded(raw[0]),
        unit=raw[1],
        z=round(z, 3),
        relative_to=_relative_to(scale, gender, language),
        also=also,
    )


def _relative_to(scale: Scale, gender: str | None, language: str) -> str:
    group = _group(scale, gender)
    voices = f"{group} voices" if group else "all voices"
    return f"{voices}, {base_language(language)}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)


def _texture(z_of: Mapping[Scale, float], prosody: Prosody, config: VoiceFactsConfig) -> str:
    """Only what stands out is named: a noisy voice is rough where its periods differ, breathy where they do not."""
    clarity, peak, jitter = z_of.get("clarity"), prosody.cpp_db, prosody.jitter
    if clarity is None or abs(clarity) < 1.0 or prosody.voiced_share < config.pitched_share:
        return ""
    if clarity > 0:
        return "clear" if peak is None or peak >= config.clear_cpp_db else ""
    if jitter is None or config.breathy_jitter < jitter < config.rough_jitter:
        return ""
    return "rough" if jitter >= config.rough_jitter else "breathy"


def _pauses(prosody: Prosody, config: FactsConfig) -> Fact:
    share = prosody.pause_share
    number = 0 if share <= config.few_pauses else 2 if share >= config.many_pauses else 1
    return Fact("pauses", "style", PAUSES[number], value=round(share, 4), unit="share of time")


def fact_table(facts: Sequence[Fact]) -> dict[str, str]:
    """`{attribute: word}`: what a writer may state."""
    return {fact.attribute: fact.word for fact in facts}
