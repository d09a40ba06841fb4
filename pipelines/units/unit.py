"""Work units: how windows are grouped into the rows of the Ray graph, and how a unit is named.

A unit is a window of a long recording or a group of short recordings. Its name is the hash of its content and of the
label configuration, so finished units are known before the graph is built, and batches inside a unit never depend on
the number of workers or on what a crash left behind.
"""

from collections.abc import Sequence

from pipelines.config import LabelConfig
from voxmill.core.hashing import fingerprint
from voxmill.data.records import Window, WindowResult, WorkUnit


def label_fingerprint(label: LabelConfig) -> str:
    """The part of a unit's name that stands for the configuration that labelled it."""
    return fingerprint({"label": label.model_dump(mode="json")})


def group(windows: Sequence[Window], unit_seconds: float, label_fingerprint: str, bucket: int = 0) -> list[WorkUnit]:
    """Groups windows of one bucket, given in a stable order, into units of at most `unit_seconds`.

    A longer window stands alone. A group also ends after one recording in sixteen, by its id: adding a recording to a
    corpus then changes the groups near it and no others.
    """
    groups: list[list[Window]] = [[]]
    length = 0.0
    for window in windows:
        if groups[-1] and length + window.seconds > unit_seconds:
            groups.append([])
            length = 0.0
        groups[-1].append(window)
        length += window.seconds
        if int(window.recording_id[:8], 16) % 16 == 0:
            groups.append([])
            length = 0.0
    return [_unit(members, label_fingerprint, bucket) for members in groups if members]


def _unit(windows: Sequence[Window], label_fingerprint: str, bucket: int) -> WorkUnit:
    content = [[w.recording_id, w.start_sample, w.end_sample, w.source.text, w.source.language] for w in windows]
    return WorkUnit(
        unit_id=fingerprint([label_fingerprint, content])[:32],
        bucket=bucket,
        results=tuple(WindowResult(window=window) for window in windows),
        costs={},
    )


def split(unit: WorkUnit, label_fingerprint: str) -> list[WorkUnit]:
    """One unit a window, for a unit of which some window ends its worker."""
    return [_unit([result.window], label_fingerprint, unit.bucket) for result in unit.results]
