"""Kept clips into shards: sessions whole, each shard written by a Ray task and named by its content.

A second run finds the same names, and a run with other thresholds never overwrites a shard that a reader has open.
"""

from pathlib import Path
from typing import Any

from voxmill.data.schemas import METADATA_COLUMNS, PLACE_COLUMNS
from voxmill.data.shards import TarWriter, read_member, to_json


def write_shards(groups: list[list[dict[str, Any]]], out: Path) -> list[dict[str, Any]]:
    """Writes a shard a group and fills in shard, offset, size and sha256 of every row.

    Returns:
        One dict a shard: name, bytes, sha256, clips.
    """
    if len(groups) == 1:
        # To start one worker takes longer than to write.
        places, shard = write_shard(0, groups[0], out)
        _place(groups[0], places)
        return [shard]
    import ray

    @ray.remote(num_cpus=0.5)
    def write(number: int, rows: list[dict[str, Any]]) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
        return write_shard(number, rows, out)

    window = max(int(ray.cluster_resources().get("CPU", 1)) * 2, 2)
    waiting: dict[Any, int] = {}
    shards: list[dict[str, Any]] = [{} for _ in groups]

    def collect() -> None:
        done, _ = ray.wait(list(waiting), num_returns=1)
        number = waiting.pop(done[0])
        places, shards[number] = ray.get(done[0])
        _place(groups[number], places)

    for number, rows in enumerate(groups):
        waiting[write.remote(number, rows)] = number
        if len(waiting) >= window:
            collect()
    while waiting:
        collect()
    return shards


def _place(rows: list[dict[str, Any]], places: list[tuple[Any, ...]]) -> None:
    for row, place in zip(rows, places, strict=True):
        row |= dict(zip(PLACE_COLUMNS, place, strict=True))


def divide(rows: list[dict[str, Any]], limit: float) -> list[list[dict[str, Any]]]:
    """Rows of one shard each: sessions whole in order; a session over `limit` bytes is split in order."""
    sessions: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        sessions.setdefault(row["session"], []).append(row)
    shards: list[list[dict[str, Any]]] = [[]]
    size = 0.0
    for members in sessions.values():
        if shards[-1] and size + sum(row["size"] for row in members) > limit:
            shards.append([])
            size = 0.0
        for row in members:
            if shards[-1] and size + row["size"] > limit:
                shards.append([])
                size = 0.0
            shards[-1].append(row)
            size += row["size"]
    return [shard for shard in shards if shard]


def write_shard(number: int, rows: list[dict[str, Any]], out: Path) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """One tar of clips; returns (shard, offset, size, sha256) of every row and what the shard is."""
    members = []
    with TarWriter(out / "shards" / f"clips-{number:06d}.tar", named_by_content=True) as tar:
        for row in rows:
            flac = read_member(out, row["shard"], row["offset"], row["size"])
            members.append(tar.add(f"{row['clip_id']}.flac", flac))
            tar.add(f"{row['clip_id']}.json", to_json(metadata(row)))
    name = f"shards/{tar.path.name}"
    places = [(name, member.offset, member.size, member.sha256) for member in members]
    return places, {"name": name, "bytes": tar.size, "sha256": tar.sha256, "clips": len(rows)}


def metadata(row: dict[str, Any]) -> dict[str, Any]:
    """What a clip's `.json` member says; labels that may change later are in the index alone."""
    given = {"speaker": row["given_speaker"]}
    return {name: row[name] for name in METADATA_COLUMNS} | given


def remove_stale(out: Path, shards: list[dict[str, Any]]) -> None:
    """Removes shards that no index names any more, and temporary files that a killed job left behind."""
    named = {Path(shard["name"]).name for shard in shards}
    for path in (out / "shards").glob("*.tar"):
        if path.name not in named:
            path.unlink()
    for path in [*out.glob(".*.tmp"), *(out / "shards").glob(".*.tmp"), *(out / "work").rglob(".*.tmp")]:
        path.unlink()
