"""Files as recorders and programs leave them, made with FFmpeg."""

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

RATE = 16000


def encode(audio: np.ndarray, rate: int, path: Path, container: str, codec: str, layout: str = "mono") -> None:
    """Writes audio in [-1, 1], [T] or [T, channels], with FFmpeg's encoder of that name."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        for part in _frames(stream, audio, rate, layout):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))


def encode_tracks(tracks: list[np.ndarray], path: Path, languages: list[str], default: int) -> None:
    """Writes mono audio at `RATE` as the tracks of a Matroska file, one of them the default."""
    with av.open(str(path), "w", format="matroska") as out:
        streams = [out.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in tracks]
        for number, (stream, language) in enumerate(zip(streams, languages, strict=True)):
            stream.metadata["language"] = language
            stream.disposition = av.stream.Disposition(int(number == default))
        for stream, audio in zip(streams, tracks, strict=True):
            for part in _frames(stream, audio, RATE, "mono"):
                out.mux(stream.encode(part))
            out.mux(stream.encode(None))


def _frames(stream: av.AudioStream, audio: np.ndarray, rate: int, layout: str) -> list[av.AudioFrame]:
    samples = np.ascontiguousarray((audio * 32767).astype(np.int16).reshape(1, -1))
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
    frame.sample_rate = rate
    fifo = av.AudioResampler(stream.codec_context.format, layout, rate, frame_size=stream.frame_size or 1024)
    return [*fifo.resample(frame), *fifo.resample(None)]


def remux(source: Path, target: Path, keep: Callable[[int], bool], shift: Callable[[int], float] = lambda _: 0) -> None:
    """Copies packets, of which `keep` says by number which stay, and `shift` by how many seconds they come later."""
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = given.streams.audio[0]
        copy = out.add_stream_from_template(stream)
        for number, packet in enumerate(given.demux(stream)):
            if packet.dts is None or packet.pts is None or not keep(number):
                continue
            ticks = round(shift(number) / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + ticks, packet.dts + ticks, copy
            out.mux(packet)


def vorbis(audio: np.ndarray, rate: int) -> bytes:
    """Audio at 16 kHz as an Ogg file at another rate; files joined are a chain."""
    content = io.BytesIO()
    soundfile.write(content, soxr.resample(audio, RATE, rate), rate, format="OGG", subtype="VORBIS")
    return content.getvalue()


def similarity(decoded: np.ndarray, wanted: np.ndarray) -> float:
    """Cosine of two sounds of about the same length, the better one of small shifts."""
    size = min(len(decoded), len(wanted)) - 4000
    middle = wanted[2000 : 2000 + size].astype(np.float64)
    score = np.correlate(decoded[: size + 4000].astype(np.float64), middle, mode="valid")
    best = decoded[int(np.argmax(score)) :][: len(middle)].astype(np.float64)
    return float(best @ middle / np.linalg.norm(best) / np.linalg.norm(middle))
