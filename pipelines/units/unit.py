"""Work units: what one row of the Ray graph is, how it is named, and where its result lies.

A unit is a window of a long recording or a group of short recordings. Its name is the hash of its content and of the
label configuration, so what is done is known before the graph is built, and batches inside a unit never depend on how
many workers there are or on what a crash left behind.
"""

import json
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxmill.core.errors import JobError
from voxmill.core.hashing import fingerprint


@dataclass(frozen=True)
class Part:
    """A window of one recording; samples at the recording's (at most 48 kHz) rate."""

    recording_id: str
    name: str
    path: str
    window: int
    start_sample: int
    end_sample: int
    sample_rate: int
    channel_choice: str
    digests: list[str]
    session: str
    speaker: str | None
    text: str | None
    language: str | None
    licence: str | None

    @property
    def seconds(self) -> float:
        return (self.end_sample - self.start_sample) / self.sample_rate


@dataclass(frozen=True)
class Unit:
    """One row of the graph."""

    unit_id: str
    parts: list[Part]

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    def to_json(self) -> str:
        return json.dumps({"unit_id": self.unit_id, "parts": [asdict(part) for part in self.parts]})


def group(parts: list[Part], unit_seconds: float, label_fingerprint: str) -> list[Unit]:
    """Groups parts, given in a stable order, into units of at most `unit_seconds` (a longer part stands alone).

    A group also ends after a recording whose id says so (one in sixteen): adding a recording to a corpus then changes
    the groups near it and no others.
    """
    groups: list[list[Part]] = [[]]
    length = 0.0
    for part in parts:
        if groups[-1] and length + part.seconds > unit_seconds:
            groups.append([])
            length = 0.0
        groups[-1].append(part)
        length += part.seconds
        if int(part.recording_id[:8], 16) % 16 == 0:
            groups.append([])
            length = 0.0
    return [_unit(members, label_fingerprint) for members in groups if members]


def _unit(parts: list[Part], label_fingerprint: str) -> Unit:
    content = [[p.recording_id, p.start_sample, p.end_sample, p.text, p.language] for p in parts]
    return Unit(fingerprint([label_fingerprint, content])[:32], parts)


def split(unit: Unit, label_fingerprint: str) -> list[Unit]:
    """One unit a part, for a unit of which some part ends its worker."""
    return [_unit([part], label_fingerprint) for part in unit.parts]


def unit_path(out: Path, unit_id: str) -> Path:
    """Where a unit's finished file lies: its labels and the audio of all its candidate clips."""
    return out / "work" / "units" / unit_id[:2] / f"{unit_id}.tar"


def read_unit(path: Path) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """The labels of a finished unit, and (offset, bytes) of its other members by name.

    Raises:
        JobError: the file is not a unit or is damaged.
    """
    try:
        with tarfile.open(path) as tar:
            members = list(tar)
            content = tar.extractfile(members[0]) if members and members[0].name == "unit.json" else None
            if content is None:
                raise JobError(f"{path}: not a work unit; remove it and run the command again")
            return json.loads(content.read()), {info.name: (info.offset_data, info.size) for info in members[1:]}
    except tarfile.TarError as error:
        raise JobError(f"{path}: damaged ({error}); remove it and run the command again") from None
