"""The shard format: members are read by their place, and an index cannot lead outside its dataset."""

from pathlib import Path

import pytest

from voxmill.data.shards import TarWriter, read_member


def test_a_member_is_read_by_its_place_and_no_path_leaves_the_dataset(tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    with TarWriter(out / "shards" / "a.tar") as tar:
        members = [tar.add(f"{name}.txt", name.encode() * 700) for name in "abc"]
    for member in members:
        assert read_member(out, "shards/a.tar", member.offset, member.size) == member.name[0].encode() * 700
    (tmp_path / "secret").write_bytes(b"x" * 9)
    (out / "link").symlink_to(tmp_path / "secret")
    for shard in ("../secret", "shards/../../secret", str(tmp_path / "secret"), "link"):
        for _ in range(2):  # what was found about a path is remembered
            with pytest.raises(ValueError, match="leaves"):
                read_member(out, shard, 0, 9)
