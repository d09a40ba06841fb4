"""What is collected from finished units depends on labels and audio, never on how a unit was come by."""

from pathlib import Path

from pipelines.config import AnnotateConfig
from pipelines.corpus.clips import rejected_row
from pipelines.corpus.collect import collect
from pipelines.units.attempts import AttemptLog, attempts_path, with_lost_calls
from pipelines.units.plan_files import read_units
from pipelines.units.store import read_unit, unit_path, write_unit
from samples.finished_work import CLIPS_A_RECORDING, FLAC, make_finished
from voxmill.data.layout import bucket_name
from voxmill.data.records import RejectedClip, StageName

CONFIG = AnnotateConfig.model_validate({"write": {"buckets": 1}})


def rejected_rows(out: Path) -> list[RejectedClip]:
    return [rejected_row(clip) for clip in collect(read_units(out, 0, CONFIG.label), out, CONFIG).rejected]


def test_a_worker_killed_among_the_voices_changes_no_row(tmp_path: Path) -> None:
    """The second worker finds their labels, so that the first one's calls are a cost that no other job has."""
    make_finished(tmp_path, 12 * CLIPS_A_RECORDING, CONFIG)
    alone = rejected_rows(tmp_path)
    for planned in read_units(tmp_path, 0, CONFIG.label):
        path = unit_path(tmp_path, 0, planned.unit_id)
        unit = read_unit(path).unit
        for calls, last in ((84, StageName.QUALITY), (0, StageName.WRITE)):
            log = AttemptLog(attempts_path(tmp_path, bucket_name(0), planned.unit_id), "run", "node")
            log.begin(StageName.VOICE_ATTRIBUTES)
            log.count(calls)
            log.begin(last)
        again = with_lost_calls(unit, log.attempts)
        assert again.costs[StageName.VOICE_ATTRIBUTES].lost_calls == 84
        write_unit(path, again, ((clip.clip_id, FLAC) for result in again.results for clip in result.clips))
        assert read_unit(path).unit == again
    assert alone and rejected_rows(tmp_path) == alone
