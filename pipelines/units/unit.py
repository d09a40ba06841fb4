"""Work units: how windows are grouped into the rows of the Ray graph, and how a unit is named.

A unit has windows of one or of several recordings of a bucket. Its name is the hash of its content and of the label
configuration, so finished units are known before the graph is built, and batches inside a unit never depend on the
number of workers or on what a crash left behind.
"""

from collections.abc import Iterable, Sequence

from pipelines.config import LabelConfig
from voxmill.core.hashing import fingerprint
from voxmill.data.records import Window, WindowResult, WorkUnit

UNITS_A_CUT = 4


def label_fingerprint(label: LabelConfig) -> str:
    """The part of a unit's name that stands for the configuration that labelled it."""
    return fingerprint({"label": label.model_dump(mode="json")})


def group(windows: Iterable[Window], unit_seconds: float, label_fingerprint: str, bucket: int = 0) -> list[WorkUnit]:
    """Groups windows, given in a stable order, into units of at most `unit_seconds` (a longer window stands alone).

    A group also ends with a recording that its id chooses, after `UNITS_A_CUT` full units on average: adding a
    recording to a corpus then changes the groups near it and no others.
    """
    groups: list[list[Window]] = [[]]
    length = 0.0
    for window in windows:
        last = groups[-1][-1] if groups[-1] else window
        ends = window.recording_id != last.recording_id and _ends_group(last, unit_seconds)
        if groups[-1] and (ends or length + window.seconds > unit_seconds):
            groups.append([])
            length = 0.0
        groups[-1].append(window)
        length += window.seconds
    return [_unit(members, label_fingerprint, bucket) for members in groups if members]


def _ends_group(last: Window, unit_seconds: float) -> bool:
    """Whether a recording, of which this is the last window, ends its group: a longer one does so more often."""
    seconds = last.end_sample / last.sample_rate
    return int(last.recording_id[:8], 16) / 2**32 < seconds / (UNITS_A_CUT * unit_seconds)


def _unit(windows: Sequence[Window], label_fingerprint: str, bucket: int) -> WorkUnit:
    content = [
        # None where once a given text was, so that units are named as before.
        [w.recording_id, w.channel, w.start_sample, w.end_sample, None, w.source.language]
        + [[clip.start, clip.end] for clip in w.clips]
        for w in windows
    ]
    return WorkUnit(
        unit_id=fingerprint([label_fingerprint, content])[:32],
        bucket=bucket,
        results=tuple(WindowResult(window=window) for window in windows),
        costs={},
    )


def split(unit: WorkUnit, label_fingerprint: str) -> list[WorkUnit]:
    """One unit a window, for a unit of which some window ends its worker."""
    return [_unit([result.window], label_fingerprint, unit.bucket) for result in unit.results]
