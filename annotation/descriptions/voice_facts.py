"""Facts that are said only where a measure is far from ordinary: loudness, ending, emphasis, phonation, channel, creak.

Unlike pitch or rate they are not relative to a group: a telephone line is one for every voice. The thresholds leave a
gap between a word and its opposite, and a clip within the gap has no such fact. benchmarks/voice_facts.py counts how
often each word is right; its figures are in docs/annotation.md.
"""

import re
from collections.abc import Sequence

from voxmill.core.config import Config
from voxmill.data.records import Fact, Prosody, StressedWord

DYNAMICS = ("flat", "moderate", "wide")
ENDINGS = ("rising", "falling")
PHONATIONS = ("whispered", "falsetto", "shouted")
CHANNELS = ("telephone", "distant")
LAUGHTER = ("laughing",)

_SPOKEN = re.compile(r"\w[\w'’-]{0,39}")
"""Of a word of a transcript what may stand among facts, and so in a writer's prompt, in quotation marks."""


class VoiceFactsConfig(Config):
    """From which measured values on a word is right. Values between two words' thresholds have no fact."""

    flat_dynamics_db: float = 1.0
    """Loudness that spreads by at most this, in dB, is flat."""
    moderate_dynamics_from_db: float = 1.6
    """Loudness that spreads by at least this, in dB, is moderate ..."""
    moderate_dynamics_to_db: float = 3.0
    """... and by at most this."""
    wide_dynamics_db: float = 4.5
    """Loudness that spreads by at least this, in dB, is wide."""
    rising_semitones: float = 2.2
    """A last 0.4 s of voice that rises by at least this, in semitones, is a rising ending."""
    falling_semitones: float = 2.2
    """A last 0.4 s of voice that falls by at least this, in semitones, is a falling ending."""
    emphasis_z: float = 1.2
    """A word is emphasised that stands out by at least this, in standard deviations of the clip's words."""
    whisper_voiced_share: float = 0.1
    """A whisper has pitch in at most this share (0..1) of its time ..."""
    whisper_tilt_db: float = 0.0
    """... so little, in dB, below 1 kHz relative to 1-5 kHz ..."""
    whisper_creak_share: float = 0.1
    """... no more creak, as a share (0..1) of its time, for a hoarse voice has no pitch, either ..."""
    whisper_level_std_db: float = 3.0
    """... and a level that varies by at least this, in dB, as no steady noise does."""
    falsetto_hz: float = 450.0
    """Clear voice above this median pitch, in Hz, is falsetto; women speak at 200 Hz, small children at 300."""
    falsetto_hnr_db: float = 11.0
    """What is falsetto has at least so many dB of harmonics to noise."""
    shout_hz: float = 280.0
    """A shout has at least this median pitch, in Hz ..."""
    shout_tilt_db: float = 5.0
    """... and at most so many dB more below 1 kHz than in 1-5 kHz."""
    pitched_share: float = 0.25
    """Falsetto, shouts, endings and textures are told where at least this share (0..1) of the time has pitch."""
    creak_share: float = 0.25
    """A voice is creaky that creaks in at least this share (0..1) of its time."""
    clear_cpp_db: float = 17.0
    """A clear voice has at least this cepstral peak prominence, in dB, beside many harmonics for little noise."""
    rough_jitter: float = 0.06
    """Of voices with much noise, one whose periods change by at least this share (0..1) is rough ..."""
    breathy_jitter: float = 0.05
    """... and one whose periods change by at most this share (0..1) is breathy."""
    telephone_high_db: float = -45.0
    """A telephone line leaves at most so many dB of 4-7.5 kHz, relative to 300-3400 Hz ..."""
    telephone_low_db: float = 2.0
    """... and at most so many of 80-240 Hz."""
    distant_decay_db_per_s: float = 190.0
    """A microphone is distant where no sound dies away faster than this, in dB a second."""


def voice_facts(prosody: Prosody, config: VoiceFactsConfig) -> list[Fact]:
    """What is worth saying of a clip, creak excepted: that is a texture, see `is_creaky`."""
    found = [_dynamics(prosody, config), _ending(prosody, config), _phonation(prosody, config)]
    found += [_emphasis(prosody.emphasis, config), _channel(prosody, config)]
    return [fact for fact in found if fact is not None]


def is_creaky(prosody: Prosody, config: VoiceFactsConfig) -> bool:
    """Whether the voice creaks for so much of the clip."""
    return prosody.creak_share is not None and prosody.creak_share >= config.creak_share


def _dynamics(prosody: Prosody, config: VoiceFactsConfig) -> Fact | None:
    spread, word = prosody.loudness_std_db, ""
    if spread is None:
        return None
    if spread <= config.flat_dynamics_db:
        word = "flat"
    elif config.moderate_dynamics_from_db <= spread <= config.moderate_dynamics_to_db:
        word = "moderate"
    elif spread >= config.wide_dynamics_db:
        word = "wide"
    return _fact("dynamics", word, spread, "dB")


def _ending(prosody: Prosody, config: VoiceFactsConfig) -> Fact | None:
    move = prosody.f0_end_semitones
    if move is None or prosody.voiced_share < config.pitched_share:
        return None
    word = "rising" if move >= config.rising_semitones else "falling" if move <= -config.falling_semitones else ""
    return _fact("ending", word, move, "semitones")


def _phonation(prosody: Prosody, config: VoiceFactsConfig) -> Fact | None:
    if prosody.voiced_share <= config.whisper_voiced_share:
        return _whisper(prosody, config)
    pitch, tilt, ratio = prosody.f0_median_hz, prosody.spectral_tilt_db, prosody.hnr_db
    if pitch is None or tilt is None or ratio is None or prosody.voiced_share < config.pitched_share:
        return None
    if pitch >= config.shout_hz and tilt <= config.shout_tilt_db:
        return _fact("phonation", "shouted", tilt, "dB spectral tilt")
    word = "falsetto" if pitch >= config.falsetto_hz and ratio >= config.falsetto_hnr_db else ""
    return _fact("phonation", word, pitch, "Hz")


def _whisper(prosody: Prosody, config: VoiceFactsConfig) -> Fact | None:
    tilt, creak, level = prosody.tilt_db, prosody.creak_share, prosody.energy_std_db
    if tilt is None or creak is None or level is None or level < config.whisper_level_std_db:
        return None
    is_one = tilt <= config.whisper_tilt_db and creak <= config.whisper_creak_share
    return _fact("phonation", "whispered" if is_one else "", tilt, "dB spectral tilt")


def _emphasis(words: Sequence[StressedWord], config: VoiceFactsConfig) -> Fact | None:
    strong = [word for word in words if word.score >= config.emphasis_z]
    text = ", ".join(found[0] for word in strong if (found := _SPOKEN.findall(word.word)))
    return _fact("emphasis", text, max((word.score for word in strong), default=0.0), "standard deviations")


def _channel(prosody: Prosody, config: VoiceFactsConfig) -> Fact | None:
    low, high, decay = prosody.low_band_db, prosody.high_band_db, prosody.decay_db_per_s
    if low is not None and high is not None and high <= config.telephone_high_db and low <= config.telephone_low_db:
        return _fact("channel", "telephone", high, "dB above 4 kHz")
    if decay is not None and decay <= config.distant_decay_db_per_s:
        return _fact("channel", "distant", decay, "dB/s")
    return None


def _fact(attribute: str, word: str, value: float, unit: str) -> Fact | None:
    return Fact(attribute, "style", word, value=round(value, 3), unit=unit) if word else None
