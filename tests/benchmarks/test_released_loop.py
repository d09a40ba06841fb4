"""The peer of `benchmarks/throughput.py` is fed what our trainer sees: its packed batch holds our sequences."""

from pathlib import Path

import pytest
import torch

from benchmarks.support.clip_audio import audio_by_clip
from model.checkpoint import load_checkpoint
from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import CHECKPOINT, add_latents, rows, write_dataset
from samples.released import is_installed
from training.curriculum.corpus import read_corpus
from training.curriculum.recipe import load_recipe
from training.curriculum.sample_stream import SampleStream

needs_released = pytest.mark.skipif(not is_installed(), reason="pip install --no-deps voxcpm==2.0.3")


@needs_released
def test_the_released_packer_makes_the_sequences_that_we_train_on(tmp_path: Path) -> None:
    from benchmarks.peer.released_loop import ReleasedLoop, Sample, collate

    add_latents(write_dataset(tmp_path, rows(("en-1",), clips_each=4, joined=(1, 2))))
    overrides = [
        f"datasets.main.path={tmp_path}",
        f"init={CHECKPOINT}",
        "mixture.modes={basic: 0.5, controllable: 0.5}",
    ]
    recipe = load_recipe("tiny_stage2", overrides)
    corpus = read_corpus(recipe)
    stream = SampleStream(corpus, recipe, TextTokenizer.from_folder(CHECKPOINT))
    shown = stream.next_step()[0]
    assert {sample.reference is None for sample in shown} == {True, False}
    loop = ReleasedLoop(load_checkpoint(CHECKPOINT), learning_rate=1e-3)
    audio = audio_by_clip(tmp_path, 16000)
    samples = [
        Sample(
            tokens,
            audio[corpus.clip_id(sample.clip)],
            None if sample.reference is None else audio[corpus.clip_id(sample.reference)],
        )
        for sample, tokens in zip(shown, stream.reader.tokens(shown), strict=True)
    ]
    packed = loop.packer(**collate(samples))
    for row, sample in enumerate(shown):
        ours = stream.reader.layout(sample)
        length = len(ours)
        is_audio_T = packed["audio_mask"][row, :length] > 0
        assert torch.equal(packed["text_tokens"][row, :length].long(), ours.tokens_T)
        assert torch.equal(is_audio_T, ours.is_audio_T) and not packed["audio_mask"][row, length:].any()
        assert int(packed["loss_mask"][row].sum()) == ours.num_target
        theirs_APD = packed["audio_feats"][row, :length][is_audio_T]
        # Latents are kept in bf16, eight binary digits.
        torch.testing.assert_close(theirs_APD, ours.audio_APD, rtol=2**-8, atol=1e-5)
    first = loop.step(samples)
    assert first.positions > sum(sample.length for sample in shown) and 0 < first.vae_seconds < first.seconds
    assert [loop.step(samples).loss for _ in range(8)][-1] < first.loss, "the loop does not train"
