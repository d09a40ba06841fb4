"""One corpus of latents in three formats, and one reader process of each: voxmill's, `webdataset`, `lhotse` Shar.

The same clips in the same order in tars of as many clips; every reader gives (clip, token ids, latents [L, D] bf16) in
shuffled order. Peers shuffle shards and a buffer of `BUFFER` samples, the first thing that their guides show;
voxmill's is the trainer's own stream: a permutation of the whole corpus, drawn by mixture and packed into rows.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.support.sample_model import write_tokenizer
from model.sequence.text_tokenizer import TextTokenizer
from samples.turns import sample_texts
from training.curriculum.corpus import read_corpus
from training.curriculum.recipe import Recipe, load_recipe
from training.curriculum.row_plan import SampleStreamState
from training.curriculum.sample_stream import SampleStream
from voxmill.data.schemas import CLIPS, LATENTS, write_index
from voxmill.data.shards import TarWriter, latent_bytes

CHANNELS, FRAMES_A_SECOND, PATCH = 64, 25, 4
WORDS_A_SECOND = 2.7
CLIPS_A_SHARD = 450
"""About an hour, as `encode` has it."""
BUFFER = 1000
SIDES = ("voxmill", "webdataset", "lhotse")
Read = tuple[str, list[int], Tensor]
"""(clip id, token ids, latents [L, D] bf16)."""


@dataclass(frozen=True)
class Clip:
    """A clip as it is written in all formats."""

    clip_id: str
    text: str
    latent_LD: Tensor

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.latent_LD) / FRAMES_A_SECOND


def draw_clips(count: int, seed: int) -> Iterator[Clip]:
    """Random latents of 2 to 30 s, most of them short, with words of the sample texts."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    words = " ".join(sample_texts()).split()
    for number in range(count):
        seconds = min(max(choose.lognormvariate(1.8, 0.6), 2.0), 30.0)
        frames = round(seconds * FRAMES_A_SECOND / PATCH) * PATCH
        latent_LD = torch.randn(frames, CHANNELS, generator=generator).to(torch.bfloat16)
        yield Clip(f"c{number:07d}", " ".join(choose.choices(words, k=round(seconds * WORDS_A_SECOND))), latent_LD)


def write_all(folder: Path, count: int, seed: int) -> None:
    """`voxmill/`, `webdataset/`, `lhotse/` and `tokenizer/` below `folder`."""
    write_tokenizer(folder / "tokenizer")
    for side, write in zip(SIDES, (_write_ours, _write_webdataset, _write_lhotse), strict=True):
        (folder / side).mkdir(parents=True)
        write(folder / side, draw_clips(count, seed))
    # The index that a run makes at its first start.
    read_corpus(recipe_of(folder, seed), index="keep")


def _shards(clips: Iterator[Clip]) -> Iterator[tuple[int, list[Clip]]]:
    number = 0
    while shard := list(islice(clips, CLIPS_A_SHARD)):
        yield number, shard
        number += 1


def _write_ours(folder: Path, clips: Iterator[Clip]) -> None:
    rows: list[dict[str, object]] = []
    latents: list[dict[str, object]] = []
    for number, shard in _shards(clips):
        name = f"latents/latents-{number:06d}.tar"
        with TarWriter(folder / name) as tar:
            for clip in shard:
                member = tar.add(f"{clip.clip_id}.safetensors", latent_bytes(clip.latent_LD))
                latents.append(
                    {
                        "clip_id": clip.clip_id,
                        "shard": name,
                        "offset": member.offset,
                        "size": member.size,
                        "sha256": member.sha256,
                        "num_frames": len(clip.latent_LD),
                        "latent_space": "random",
                    }
                )
                rows.append(
                    {
                        "clip_id": clip.clip_id,
                        "session": f"s{number}",
                        "duration": clip.seconds,
                        "text": clip.text,
                        "language": "en",
                        "origin": "native",
                        "stage_modes": [{"stage": 1, "modes": ["basic"]}],
                    }
                )
    write_index(folder / "clips.parquet", CLIPS, rows)
    write_index(folder / "latents.parquet", LATENTS, latents)
    (folder / "latents.json").write_text(json.dumps({"latent_space": "random", "patch_size": PATCH}))


def _write_webdataset(folder: Path, clips: Iterator[Clip]) -> None:
    for number, shard in _shards(clips):
        with TarWriter(folder / f"shard-{number:06d}.tar") as tar:
            for clip in shard:
                tar.add(f"{clip.clip_id}.json", json.dumps({"text": clip.text}).encode())
                tar.add(f"{clip.clip_id}.safetensors", latent_bytes(clip.latent_LD))


def _write_lhotse(folder: Path, clips: Iterator[Clip]) -> None:
    from lhotse import MonoCut, SupervisionSegment
    from lhotse.shar import SharWriter

    with SharWriter(str(folder), {"latent": "numpy"}, shard_size=CLIPS_A_SHARD) as writer:
        for clip in clips:
            segment = SupervisionSegment(clip.clip_id, clip.clip_id, 0.0, clip.seconds, text=clip.text)
            cut = MonoCut(clip.clip_id, 0.0, clip.seconds, 0, supervisions=[segment])
            # NumPy has no bf16: the same 16 bits under another name.
            writer.write(cut.attach_tensor("latent", clip.latent_LD.view(torch.int16).numpy()))


def recipe_of(folder: Path, seed: int) -> Recipe:
    """Stage 1 in plain TTS over `folder/voxmill`, rows of 8192 positions out of a window of 1024."""
    overrides = [
        f"init={folder / 'tokenizer'}",
        f"datasets.main.path={folder / 'voxmill'}",
        "mixture.modes={basic: 1.0}",
        f"seed={seed}",
        "packing={positions: 8192, window: 1024}",
        "rows=1",
        "clips.max_seconds=60",
        f"run.out={folder / 'run'}",
    ]
    return load_recipe("tiny_stage1", overrides)


def open_stream(folder: Path, seed: int, state: SampleStreamState | None = None) -> SampleStream:
    """The trainer's stream, from its beginning or from a saved state."""
    recipe = recipe_of(folder, seed)
    stream = SampleStream(read_corpus(recipe), recipe, TextTokenizer.from_folder(folder / "tokenizer"))
    if state is not None:
        stream.restore(state)
    return stream


def state_after(folder: Path, seed: int, skip: int) -> tuple[SampleStreamState, int]:
    """(state of the stream once `skip` samples or a few more were given, how many); no latents are read."""
    stream = open_stream(folder, seed)
    given = 0
    while given < skip:
        given += sum(len(row) for row in stream.next_step())
    return stream.state(), given


def read(
    side: str, folder: Path, seed: int, *, skip: int = 0, state: SampleStreamState | None = None
) -> Iterator[Read]:
    """Samples of a format in shuffled order: one epoch of a peer, of voxmill without end.

    Args:
        skip: samples that a resumed run had before; a peer can only skip them, before anything is decoded.
        state: voxmill resumes from this instead.
    """
    if side == "voxmill":
        return _read_ours(folder, seed, state)
    return (_read_webdataset if side == "webdataset" else _read_lhotse)(folder, seed, skip)


def _read_ours(folder: Path, seed: int, state: SampleStreamState | None) -> Iterator[Read]:
    stream = open_stream(folder, seed, state)
    corpus, reader = stream.corpus, stream.reader
    while True:
        for row in stream.next_step():
            clips = [sample.clip for sample in row]
            latents = reader.latents(clips)
            texts = corpus.read_texts(clips)
            for clip, written, tokens in zip(clips, texts, reader.tokens(row, texts), strict=True):
                latent_GPD = latents[clip]
                assert isinstance(latent_GPD, Tensor)
                yield written.clip_id, tokens, latent_GPD.flatten(0, 1)


def _read_webdataset(folder: Path, seed: int, skip: int) -> Iterator[Read]:
    import webdataset
    from safetensors.torch import load

    tokenizer = TextTokenizer.from_folder(folder / "tokenizer")
    shards = sorted(str(path) for path in (folder / "webdataset").glob("*.tar"))
    samples = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=seed, empty_check=False)
    for sample in islice(samples.shuffle(BUFFER, rng=random.Random(seed)), skip, None):
        text = json.loads(sample["json"])["text"]
        yield sample["__key__"], tokenizer.encode(text), load(sample["safetensors"])["latent"]


def _read_lhotse(folder: Path, seed: int, skip: int) -> Iterator[Read]:
    from lhotse import CutSet

    tokenizer = TextTokenizer.from_folder(folder / "tokenizer")
    cuts = CutSet.from_shar(in_dir=folder / "lhotse", shuffle_shards=True, seed=seed)
    for cut in islice(cuts.shuffle(random.Random(seed), buffer_size=BUFFER), skip, None):
        latent_LD = torch.from_numpy(cut.load_latent()).view(torch.bfloat16)
        yield cut.id, tokenizer.encode(cut.supervisions[0].text), latent_LD
