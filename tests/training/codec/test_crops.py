"""Crops of real audio from folders and shards: input, target, and clips that are skipped."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from samples.fabricate import make_folder, speech
from training.codec.crops import CropSource, hold_out
from voxmill.core.audio import AudioProblem
from voxmill.core.errors import UserError
from voxmill.data.audio_sources import Clip, find_clips, read_clip
from voxmill.data.schemas import CLIPS, write_index
from voxmill.data.shards import TarWriter


def source_of(clips: list[Clip], **changes: object) -> CropSource:
    settings: dict[str, object] = {"seconds": 0.64, "gain_db": 6.0, "seed": 3, "rate_in": 16000, "rate_out": 48000}
    return CropSource(clips, **(settings | changes))  # type: ignore[arg-type]


def test_bad_files(tmp_path: Path) -> None:
    clips, skipped = find_clips(make_folder(tmp_path / "in"), min_seconds=0.64)
    assert [clip.name for clip in clips] == ["a.flac", "b.wav", "c.wav", "cut.flac", "d.wav", "nan.wav", "silence.wav"]
    assert dict(skipped.counts) == {"empty_file": 1, "not_audio": 1, "sample_rate": 1, "too_short": 1}
    assert (skipped.names["empty_file"], skipped.names["not_audio"]) == (["empty.wav"], ["text.wav"])
    source = source_of(clips)
    rates = {int(rate) for rate in source.batch(0, 60).rate_B}
    assert rates == {16000, 22050, 48000}
    assert set(source.skipped.counts) >= {"silent", "non_finite"}
    assert source.skipped.names["silent"] == ["silence.wav"] and source.skipped.names["non_finite"] == ["nan.wav"]
    # A FLAC that is cut off gives its beginning, and is damaged where it ends.
    assert source.skipped.names["decode_error"] == ["cut.flac"]
    with pytest.raises(AudioProblem, match="silent"):
        read_clip(next(clip for clip in clips if clip.name == "silence.wav"))


def test_nothing_usable(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(64000), 16000)
    clips, _ = find_clips(tmp_path, min_seconds=0.64)
    with pytest.raises(UserError, match="silent 50"):
        source_of(clips).crop(0)
    (tmp_path / "silence.wav").unlink()
    with pytest.raises(UserError, match="no clip"):
        find_clips(tmp_path, min_seconds=0.64)
    with pytest.raises(UserError, match="no such file"):
        find_clips(tmp_path / "elsewhere", min_seconds=0.64)


def test_crops_hang_on_their_number(tmp_path: Path) -> None:
    clips, _ = find_clips(make_folder(tmp_path / "in"), min_seconds=0.64)
    whole = source_of(clips).batch(0, 12)
    halves = [source_of(clips).batch(first, 6) for first in (0, 6)]
    assert torch.equal(whole.target_BT, torch.cat([half.target_BT for half in halves]))
    stream = source_of(clips).stream(4, 2, every=4, readers=3)
    second = [next(stream) for _ in range(2)][1]
    stream.close()
    assert torch.equal(second.input_BT, whole.input_BT[8:10])
    assert not torch.equal(source_of(clips, seed=4).batch(0, 12).target_BT, whole.target_BT)


def test_input_and_target_are_the_same_sound() -> None:
    """A 1 kHz tone of a 24 kHz source is in both, in phase, at the drawn level."""
    rate, seconds = 24000, 3.0
    tone = 0.25 * np.sin(2 * np.pi * 1000 * np.arange(int(rate * seconds)) / rate).astype(np.float32)
    source = source_of([Clip("tone", "tone", "", rate, len(tone))])
    input_T, target_T = source.views(tone, rate, start_seconds=1.0)
    assert input_T.shape == (10240,) and target_T.shape == (30720,)
    assert torch.allclose(input_T, target_T[::3], atol=2e-3)
    expected = 0.25 * np.sin(2 * np.pi * 1000 * (1.0 + np.arange(10240) / 16000))
    assert np.allclose(input_T.numpy(), expected, atol=2e-3)


def test_levels(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", 0.99 * np.sin(np.arange(48000)), 16000)
    clips, _ = find_clips(tmp_path, min_seconds=0.64)
    peaks_B = source_of(clips, gain_db=20.0).batch(0, 40).input_BT.abs().amax(dim=1)
    assert float(peaks_B.max()) <= 1.0 and float(peaks_B.min()) < 0.3
    same_B = source_of(clips, gain_db=0.0).batch(0, 4).input_BT.abs().amax(dim=1)
    assert torch.allclose(same_B, torch.tensor(0.99), atol=0.01)


def test_shards(tmp_path: Path) -> None:
    """Clips of a dataset come out of their tar by the index, sample for sample."""
    audio = {f"clip{n}": speech(name, rate=rate) for n, (name, rate) in enumerate([("en-1", 16000), ("fr-1", 24000)])}
    rates = {"clip0": 16000, "clip1": 24000}
    rows = []
    with TarWriter(tmp_path / "shards" / "part.tar") as tar:
        for name, samples in audio.items():
            buffer = io.BytesIO()
            soundfile.write(buffer, samples, rates[name], format="FLAC")
            member = tar.add(f"{name}.flac", buffer.getvalue())
            tar.add(f"{name}.json", b"{}")
            rows.append(
                {
                    "clip_id": name,
                    "recording_id": f"of-{name}",
                    "sample_rate": rates[name],
                    "start_sample": 500,
                    "end_sample": 500 + len(samples),
                    "shard": "shards/part.tar",
                    "offset": member.offset,
                    "size": member.size,
                }
            )
    rows.append(rows[0] | {"clip_id": "lost", "shard": "shards/gone.tar"})
    write_index(tmp_path / "clips.parquet", CLIPS, rows)
    clips, skipped = find_clips(tmp_path, min_seconds=0.5)
    assert skipped.as_json() == {"missing": {"count": 1, "names": ["lost"]}}
    assert [clip.name for clip in clips] == ["clip0", "clip1"]
    piece = read_clip(clips[1], 1000, 2000)
    assert np.allclose(piece, audio["clip1"][1000:3000], atol=1e-4)
    train, held = hold_out(clips, ("of-clip0",), 0.5)
    assert [clip.name for clip in train] == ["clip1"] and [clip.name for clip in held] == ["clip0"]
    with pytest.raises(UserError, match="no recording 'of-clip9'"):
        hold_out(clips, ("of-clip9",), 0.5)
