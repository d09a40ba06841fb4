"""Datasets of as many clips as are asked for: labels such as real ones have, without audio and latents.

One part is made of words of the sample recordings, and written again and again with other ids, so that a hundred
million clips need no time to think of; whoever measures with it must count equal texts once (`RememberingTokenizer`).
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model.sequence.text_tokenizer import TextTokenizer
from samples.turns import sample_texts
from voxmill.data.layout import bucket_name
from voxmill.data.schemas import CLIPS, LATENTS

A_PART = 8192
"""Clips of a bucket, as 16 hours of recordings have."""
PATCH, FRAMES_A_SECOND, CHANNELS = 4, 25, 64
WORDS_A_SECOND = 2.7
REFERENCES = (3, 7)
DESCRIPTIONS = (2, 4)
ALL = ["basic", "continuation", "design", "reference", "controllable"]
PHRASES = {
    "design": (
        "a low, slightly hoarse male voice with a calm delivery",
        "a bright young female voice, close to the microphone",
        "an elderly voice that trembles a little",
    ),
    "style": (
        "spoken slowly and with long pauses, as if tired",
        "fast, excited and rising at the end of each phrase",
        "in a warm whisper with little variation in pitch",
    ),
}


def block(seed: int) -> pa.Table:
    """One part's clips; ids and references are those of part 0."""
    choose, rows = random.Random(seed), []
    words = " ".join(sample_texts()).split()
    for number in range(A_PART):
        seconds = min(max(choose.lognormvariate(1.8, 0.6), 0.6), 60.0)
        first = number - number % 16
        described = [
            {"axis": axis, "text": choose.choice(PHRASES[axis]), "verdicts": passed()}
            for axis in ["design", "style", *choose.choices(["design", "style"], k=choose.randint(*DESCRIPTIONS) - 2)]
        ]
        others = [other for other in range(first, first + 16) if other != number]
        rows.append(
            {
                "clip_id": f"{number:05d}",
                "recording_id": f"r{first:05d}",
                "session": f"s{first:05d}",
                "duration": round(seconds, 3),
                "text": " ".join(choose.choices(words, k=max(round(seconds * WORDS_A_SECOND), 1))),
                "language": choose.choice(["en", "en", "fr", "es", "it", "ru"]),
                "origin": "native",
                "quality": {"dnsmos_ovr": 3.5},
                "references": [
                    {"clip_id": f"{other:05d}", "similarity": 0.8}
                    for other in choose.sample(others, choose.randint(*REFERENCES))
                ],
                "descriptions": described,
                "modes": ALL,
                "stage_modes": [{"stage": 1, "modes": ALL[:2]}, {"stage": 2, "modes": ALL}],
            }
        )
    return pa.Table.from_pylist(rows, schema=CLIPS)


def passed() -> list[dict[str, str]]:
    """Verdicts on a description of two claims."""
    return [{"attribute": "pitch", "verdict": "pass"}, {"attribute": "speed", "verdict": "pass"}]


def write_clips(folder: Path, count: int, seed: int = 0) -> Path:
    """A dataset of `count` clips, rounded up to whole parts; no shard is there."""
    template, latents = block(seed), _latents(block(seed), seed)
    for name in ("clips.parquet", "latents.parquet"):
        (folder / name).mkdir(parents=True)
    for part in range(-(-count // A_PART)):
        for name, table in (("clips.parquet", template), ("latents.parquet", latents)):
            pq.write_table(_renamed(table, part), folder / name / f"{bucket_name(part)}.parquet", compression="zstd")
    header = {"latent_space": "fabricated", "patch_size": PATCH}
    (folder / "latents.json").write_text(json.dumps(header), encoding="utf-8")
    return folder


def _latents(clips: pa.Table, seed: int) -> pa.Table:
    digits = np.random.default_rng(seed).bytes(32 * A_PART).hex()
    frames = np.maximum(np.round(clips["duration"].to_numpy() * FRAMES_A_SECOND / PATCH), 1).astype(np.int64) * PATCH
    sizes = frames * CHANNELS * 2 + 96
    columns = {
        "clip_id": clips["clip_id"],
        "shard": pa.array(["latents/0000/latents.tar"] * A_PART),
        "offset": np.cumsum(sizes + 512) - sizes,
        "size": sizes,
        "sha256": [digits[64 * number : 64 * (number + 1)] for number in range(A_PART)],
        "num_frames": frames,
        "latent_space": ["fabricated"] * A_PART,
    }
    return pa.table(columns).select(LATENTS.names).cast(LATENTS)


def _renamed(table: pa.Table, part: int) -> pa.Table:
    """The same clips under the ids of another part."""
    prefix = pa.scalar(f"p{part:05x}-")

    def named(ids: Any) -> Any:
        return pc.binary_join_element_wise(prefix, ids, "")

    def put(name: str, values: Any) -> None:
        nonlocal table
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), values)

    put("clip_id", named(table["clip_id"]))
    if "references" in table.column_names:
        lists = table["references"].combine_chunks()
        entries = pa.StructArray.from_arrays(
            [named(pc.struct_field(lists.values, "clip_id")), pc.struct_field(lists.values, "similarity")],
            fields=list(lists.type.value_type),
        )
        put("references", pa.ListArray.from_arrays(lists.offsets, entries, type=lists.type))
    else:
        put("shard", pa.array([f"latents/{bucket_name(part)}/latents-{part:06d}.tar"] * len(table)))
    return table


class RememberingTokenizer(TextTokenizer):
    """Counts a text once, however often it comes."""

    known: dict[str, int]

    def count(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """As `TextTokenizer.count`."""
        self.known = getattr(self, "known", {})
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        self.known.update(zip(new, super().count(new).tolist(), strict=True))
        return np.array([self.known[text] for text in texts], dtype=np.int64)
