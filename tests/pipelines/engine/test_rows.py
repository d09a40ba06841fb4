"""Audio between pools: 16 bits where they hold all of it, and the same bits on the other side."""

import dataclasses

import numpy as np
import pytest

from pipelines.engine.rows import Row, from_rows, no_audio, to_rows
from pipelines.stages.base import WindowAudio
from pipelines.stages.decode import in_16_bits
from tests.pipelines.engine.made_results import result_of
from voxmill.data.records import Cost, StageName, WorkUnit


def decoded(samples: np.ndarray) -> tuple[WindowAudio, float]:
    """Samples as `Decode` hands them on, and their offset."""
    rounded, step = in_16_bits(samples.astype(np.float32))
    offset = float(rounded.mean())
    return WindowAudio(samples=rounded - np.float32(offset), step=step), offset


def test_a_row_comes_back_with_its_audio() -> None:
    random = np.random.default_rng(0)
    exact, offset = decoded(random.integers(-32768, 32768, 5000) / 32768)
    rounded, other = decoded(0.003 * random.standard_normal(4000) + 0.001)
    voice = WindowAudio(clips=(random.standard_normal(7).astype(np.float32),))
    cut = dataclasses.replace(exact, samples=exact.samples[:0], clips=(exact.samples[10:90], exact.samples[:0]))
    results = (
        result_of("w", dc_offset=offset),
        result_of("x", 2, offset),
        result_of("y", dc_offset=other),
        result_of("z", 1),
    )
    first = WorkUnit(unit_id="a", results=results, costs={})
    second = WorkUnit(unit_id="b", results=(), costs={StageName.DECODE: Cost(calls=1)})
    audio = (exact, cut, rounded, voice)
    table = to_rows([Row(first, audio, 3.5), Row(second, ())])
    rows = from_rows(table)
    assert [row.unit for row in rows] == [first, second] and rows[1].audio == () and rows[0].seconds == 3.5
    for given, back in zip(audio, rows[0].audio, strict=True):
        assert back.samples.tobytes() == given.samples.tobytes() and back.step == given.step
        assert [clip.tobytes() for clip in back.clips] == [clip.tobytes() for clip in given.clips]
    # Two bytes a sample, but for the separated voice.
    assert table.nbytes < 2 * (5000 + 80 + 4000) + 4 * 7 + 3000


def test_a_row_before_any_stage_has_empty_audio() -> None:
    unit = WorkUnit(unit_id="u", results=(result_of("x"), result_of("y")), costs={})
    (row,) = from_rows(to_rows([Row(unit, no_audio(unit))]))
    assert [len(sound.samples) for sound in row.audio] == [0, 0] and row.unit == unit


def test_what_16_bits_hold_is_not_changed() -> None:
    samples = (np.arange(-32767, 32768) / 32768).astype(np.float32)
    same, step = in_16_bits(samples)
    assert same is samples and step == 2.0**-15
    assert in_16_bits(np.zeros(0, dtype=np.float32))[1] == 2.0**-15


@pytest.mark.parametrize("peak", [1.0, 0.01, 3.0])
def test_other_sounds_are_rounded_16_bits_below_their_peak(peak: float) -> None:
    samples = (peak * np.random.default_rng(1).uniform(-1, 1, 10000)).astype(np.float32)
    rounded, step = in_16_bits(samples)
    assert np.abs(rounded - samples).max() <= 0.501 * step and step <= 1.001 * peak / 32767
