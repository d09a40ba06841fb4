"""The three formats hold the same latents, and a resumed reader goes on with what the uninterrupted one gives next."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmarks.support import latent_readers
from benchmarks.support.latent_readers import SIDES, draw_clips, read, state_after, write_all
from model.sequence.text_tokenizer import TextTokenizer

CLIPS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("lhotse")
    made = tmp_path_factory.mktemp("latents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_readers, "CLIPS_A_SHARD", 12)
        write_all(made, CLIPS, seed=3)
    return made


@pytest.mark.parametrize("side", SIDES)
def test_every_format_gives_every_clip_as_it_was_written(folder: Path, side: str) -> None:
    tokenizer = TextTokenizer.from_folder(folder / "tokenizer")
    written = {clip.clip_id: clip for clip in draw_clips(CLIPS, seed=3)}
    assert len(list((folder / side).rglob("*.tar"))) == 4, "not in shards"
    seen = set()
    for clip_id, tokens, latent_LD in islice(read(side, folder, 0), 100 * CLIPS):
        assert tokens == tokenizer.encode(written[clip_id].text)
        assert latent_LD.dtype == torch.bfloat16 and torch.equal(latent_LD, written[clip_id].latent_LD)
        seen.add(clip_id)
        if len(seen) == CLIPS:
            break
    assert seen == set(written)


@pytest.mark.parametrize("side", SIDES)
def test_a_resumed_reader_continues_where_the_first_one_stopped(folder: Path, side: str) -> None:
    state, given = state_after(folder, 0, CLIPS // 2)
    whole = [clip_id for clip_id, _, _ in islice(read(side, folder, 0), CLIPS if side != "voxmill" else given + 30)]
    resumed = read(side, folder, 0, skip=given, state=state if side == "voxmill" else None)
    assert [clip_id for clip_id, _, _ in islice(resumed, len(whole) - given)] == whole[given:]
    assert side == "voxmill" or whole != sorted(whole), "not shuffled"
