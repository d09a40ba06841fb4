"""Every column of a dataset's Parquet indexes, from the records that they are derived from: docs/dataset-format.md.

python -m voxmill.cli.columns > docs/dataset-format.md
"""

import ast
import dataclasses
import inspect
import re
import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

from voxmill.data import records
from voxmill.data.records import Clip, Latent, Recording, RejectedClip
from voxmill.data.schemas import CLIPS, LATENTS, RECORDINGS, REJECTED

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_LABELS = "corpus labels"
_PLACE = dict.fromkeys(("shard", "offset", "size", "sha256"), "shards")
_CLIP_ORIGINS = {
    **dict.fromkeys(("clip_id", "start_sample", "end_sample", "duration", "turn", "cut"), "segmentation"),
    **dict.fromkeys(("text", "words", "language", "language_probability", "transcript"), "transcription"),
    **dict.fromkeys(("session", "speaker", "licence"), "manifest"),
    "recording_id": "scan",
    "position": "selection",
    "sample_rate": "decode",
    **dict.fromkeys(("channel", "path"), "scan"),
    **dict.fromkeys(("origin", "separated_by"), "separation"),
    **{name: name for name in ("quality", "prosody", "gender", "emotion", "age", "dialect")},
    **dict.fromkeys(("singing_share", "style"), "events"),
    **dict.fromkeys(("cluster", "expressiveness", "expressiveness_percentile", "facts", "references"), _LABELS),
    **dict.fromkeys(("no_reference", "parents", "modes", "stages", "stage_modes"), _LABELS),
    **dict.fromkeys(("text_source", "given_agreement", "recognised_text", "text_differences"), "selection"),
    "predicted_wer": "selection",
    "distillmos": "mos",
    "given": "manifest",
    "descriptions": "descriptions",
    **_PLACE,
}
_ENDING = dict.fromkeys(("stage", "reason", "value", "threshold"), "selection")
_RECORDING_ORIGINS = {
    **dict.fromkeys(("path", "session", "licence"), "manifest"),
    **dict.fromkeys(("recording_id", "duration", "sample_rate", "channels", "channels_read", "codec"), "scan"),
    **dict.fromkeys(("other_tracks", "warnings"), "scan"),
    **dict.fromkeys(("seconds_lost", "ended_windows"), "its windows' last stages"),
    **dict.fromkeys(("state", "stage", "reason", "value", "threshold", "detail"), "its last stage"),
    **dict.fromkeys(("separated", "separation"), "separation"),
    "num_clips": "segmentation",
    "num_kept": "selection",
}
_LATENT_ORIGINS = {
    "clip_id": "clips.parquet",
    **dict.fromkeys(("num_frames", "latent_space"), "encode"),
    **dict.fromkeys(_PLACE, "encode"),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column, or one field of a struct in it (`quality.snr_db`, `words[].start`). `unit`: "" where it has none."""

    name: str
    type: str
    nullable: bool
    unit: str
    text: str
    origin: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """One Parquet file. `base`: a file whose columns it has too; only the others are listed."""

    file: str
    text: str
    record: "type[DataclassInstance]"
    schema: pa.Schema
    origins: Mapping[str, str]
    base: "type[DataclassInstance] | None" = None

    def columns(self) -> Iterator[Column]:
        """Its columns in order, with the fields of structs after their column."""
        inherited = {field.name for field in dataclasses.fields(self.base)} if self.base is not None else set()
        for field in self.schema:
            if field.name not in inherited:
                yield from _columns(self.record, field, "", self.origins[field.name])


INDEXES = (
    Index(
        file="clips.parquet",
        text="A row for each kept clip, in the order of the shards.",
        record=Clip,
        schema=CLIPS,
        origins=_CLIP_ORIGINS,
    ),
    Index(
        file="rejected.parquet",
        text="A row for each clip that a rule dropped: all columns of clips.parquet, and why. Its audio is not in a "
        "shard but in the work unit below `work/`; `sha256` and `position` are null.",
        record=RejectedClip,
        schema=REJECTED,
        origins=_CLIP_ORIGINS | _ENDING,
        base=Clip,
    ),
    Index(
        file="recordings.parquet",
        text="A row for each input, whatever became of it.",
        record=Recording,
        schema=RECORDINGS,
        origins=_RECORDING_ORIGINS,
    ),
    Index(
        file="latents.parquet",
        text="A row for each encoded clip; written by `voxmill encode`.",
        record=Latent,
        schema=LATENTS,
        origins=_LATENT_ORIGINS,
    ),
)


@cache
def _documented() -> dict[str, dict[str, str]]:
    """Docstrings below the fields of the records, by class and field."""
    documented: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(records)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        texts = documented.setdefault(node.name, {})
        for field, below in zip(node.body, node.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                texts[field.target.id] = str(below.value.value)
    return documented


def _text_and_unit(record: "type[DataclassInstance]", name: str) -> tuple[str, str]:
    for kind in record.__mro__:
        text = _documented().get(kind.__name__, {}).get(name)
        if text is not None:
            match = re.fullmatch(r"(.*?)(?: \[([^\]]+)\])?", text, re.DOTALL)
            assert match is not None
            return match[1], match[2] or ""
    return "", ""


def _columns(record: "type[DataclassInstance]", field: pa.Field, prefix: str, origin: str) -> Iterator[Column]:
    hint = get_type_hints(record)[field.name]
    nullable = get_origin(hint) in (Union, types.UnionType)
    if nullable:
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    text, unit = _text_and_unit(record, field.name)
    kind, brackets = field.type, ""
    if pa.types.is_list(kind):
        kind, brackets, hint = kind.value_type, "[]", get_args(hint)[0]
    word = "struct" if pa.types.is_struct(kind) else str(kind)
    name = f"{prefix}{field.name}"
    yield Column(
        name=name,
        type=f"list of {word}" if brackets else word,
        nullable=nullable,
        unit=unit,
        text=text,
        origin=origin,
    )
    if pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _columns(hint, kind.field(index), f"{name}{brackets}.", origin)


def page() -> str:
    """The text of docs/dataset-format.md."""
    lines = [
        "# Dataset format",
        "",
        "OUT of `voxmill annotate` and `voxmill encode` holds:",
        "",
        "| Path | What it is |",
        "|---|---|",
        "| `shards/clips-*.tar` | WebDataset shards: `{clip_id}.flac` (mono) and `{clip_id}.json`, whose keys are the "
        "columns of clips.parquet up to `licence` |",
        "| `latents/<bucket>/latents-*.tar` | `{clip_id}.safetensors`: one bf16 tensor `latent` of frames and "
        "channels |",
        "| `*.parquet` | the indexes below, a file or a folder of one part a bucket; `shard`, `offset` and `size` find "
        "a clip without reading the tar |",
        "| `dataset.json` | what the dataset consists of, with checksums, written last; earlier ones in `snapshots/` |",
        "| `run.json`, `latents.json` | settings, versions and figures of the two jobs |",
        "| `report.html`, `README.md` | report and dataset card |",
        "| `work/` | what the jobs need to resume, and to change thresholds without running a model again |",
        "",
        "From names the stage of the job that measures or decides a column, or the manifest that gives it. A column",
        "may be null only where the column Null has a yes. [How other libraries read it](increments.md). This page is",
        "generated: `make docs-pages`.",
    ]
    for index in INDEXES:
        lines += ["", f"## {index.file}", "", index.text, ""]
        lines += ["| Column | Type | Null | Unit or range | Meaning | From |", "|---|---|---|---|---|---|"]
        for column in index.columns():
            cells = (
                f"`{column.name}`",
                column.type,
                "yes" if column.nullable else "",
                column.unit,
                column.text,
                column.origin,
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
