"""Generation is the released one: the oracle in six modes, its limits, seeds, prompt cache and half precision."""

import contextlib
import io

import pytest
import torch
from torch import Tensor

from model.codec.audio_vae import AudioVAE
from model.flow.sampler import start_noise
from model.generation.active_request import ActiveRequest
from model.generation.continuous_batch import ContinuousBatch
from model.generation.generator import Generator
from model.generation.request import Request, Settings
from model.generation.streaming import context_of, decode, decode_next, open_decoder
from model.generation.voice import Voice
from model.layers.packed_linear import can_pack, packed
from model.voxcpm2 import VoxCPM2
from samples.released import is_installed, released_model
from tests.model.generation.spoken_cases import CASES, check, finish, request_of, row_of, voice_of
from tests.support.oracle import Oracle, error


@pytest.mark.parametrize("case", CASES)
def test_prefixes_are_the_released_ones(oracle: Oracle, generator: Generator, case: str) -> None:
    layout = generator.prepare(request_of(oracle, case)).layout
    audio_T = oracle[f"{case}.audio_mask"][0].bool()
    assert layout.tokens_T.tolist() == oracle[f"{case}.tokens"][0].tolist()
    assert layout.is_audio_T.tolist() == audio_T.tolist()
    assert torch.equal(layout.audio_APD, oracle[f"{case}.feat"][0][audio_T])


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("case", CASES)
def test_released_patches_and_stop_decisions(oracle: Oracle, generator: Generator, case: str, pack: bool) -> None:
    if pack and not can_pack(torch.float32):
        pytest.skip("this machine's PyTorch has no packed kernels")
    batch = ContinuousBatch(packed(oracle.core()) if pack else oracle.core())
    row = row_of(oracle, generator, case)
    batch.join([row])
    finish(batch)
    assert check(oracle, row, case) <= 1e-4


def test_released_limit(oracle: Oracle, generator: Generator) -> None:
    for case in CASES:
        assert generator.prepare(request_of(oracle, case)).limit == oracle.json[f"{case}.meta"]["effective_max_len"]


@pytest.mark.parametrize("case", CASES)
def test_released_audio_and_stream(oracle: Oracle, vae: AudioVAE, generator: Generator, case: str) -> None:
    """Both ways of decoding give the released full decode, in continuation too, where the released stream does not."""
    context = context_of(generator.prepare(request_of(oracle, case)).layout)
    patches_GPD, expected = oracle[f"{case}.pred"], oracle[f"{case}.audio"][0]
    with torch.no_grad():
        assert (decode(vae, patches_GPD, context, seed=0) - expected).abs().max() <= 1e-5
        stream = open_decoder(vae, context, seed=0)
        pieces = [decode_next([stream], [patch])[0] for patch in patches_GPD]
    assert {len(piece) for piece in pieces} == {len(expected) // len(patches_GPD)}
    assert (torch.cat(pieces) - expected).abs().max() <= 1e-5
    assert len(context) == oracle.json[f"{case}.meta"]["context_len"]


def test_released_prompt_cache(oracle: Oracle, generator: Generator) -> None:
    """Two sentences in one voice: the second sees the first as its prompt (the oracle's cache.f1, cache.f2)."""
    voice = voice_of(oracle, "gen.reference.a")
    extended = voice.extended("hello test", oracle["cache.f1"])
    again = extended.extended(" 你好", oracle["cache.f2"])
    assert extended.prompt_text == "hello test" and extended.prompt_TPD is not None
    assert torch.equal(extended.prompt_TPD, oracle["cache.f1"])
    assert again.prompt_text == "hello test 你好" and again.prompt_TPD is not None
    assert torch.equal(again.prompt_TPD, torch.cat([oracle["cache.f1"], oracle["cache.f2"]]))
    assert again.reference_RPD is voice.reference_RPD
    layout = generator.prepare(Request("test", voice=again)).layout
    assert layout.num_target == len(oracle["cache.f1"]) + len(oracle["cache.f2"])
    with pytest.raises(ValueError, match="both or neither"):
        Voice(prompt_text="text without audio")


def test_a_seed_is_the_released_one(oracle: Oracle, generator: Generator) -> None:
    """Free-running with a seed draws the noise that the released code draws from it."""
    case = "gen.zero_shot.a"
    row = ActiveRequest(
        generator.prepare(request_of(oracle, case)).layout, Settings(), 6, torch.Generator().manual_seed(4242)
    )
    shape = (oracle.config.patch_size, oracle.config.feat_dim)
    for expected in oracle[f"{case}.z"]:
        assert torch.equal(row.next_noise(shape, torch.float32), expected.transpose(1, 2))
        row.patches.append(torch.empty(0))


def first_patch(model: VoxCPM2, row: ActiveRequest) -> Tensor:
    batch = ContinuousBatch(model)
    batch.join([row])
    batch.step()
    return row.patches[0].float()


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "packed"])
def test_half_precision_beside_the_released_code(oracle: Oracle, generator: Generator, pack: bool) -> None:
    """In bf16 the first patch is nearer to the released code's bf16 than bf16 is to fp32, in every mode."""
    if not is_installed():
        pytest.skip("the released code is not installed")
    model = oracle.core().to(torch.bfloat16)
    peer = released_model(oracle.config, model, dtype=torch.bfloat16, tokenizer=oracle.checkpoint)
    ours = packed(model) if pack else model
    near, far = [], []
    for case in CASES:
        names = ("tokens", "text_mask", "feat", "audio_mask")
        tokens, text, feats, audio = (oracle[f"{case}.{name}"] for name in names)
        request = request_of(oracle, case)
        torch.manual_seed(request.seed or 0)
        with contextlib.redirect_stderr(io.StringIO()):  # it draws a progress bar there
            expected = peer.inference(
                tokens,
                text,
                feats.bfloat16(),
                audio,
                max_len=1,
                inference_timesteps=request.settings.steps,
                cfg_value=request.settings.guidance,
            )[1][0]
        prepared = generator.prepare(request)
        seeded = torch.Generator().manual_seed(request.seed or 0)
        patch_PD = first_patch(ours, ActiveRequest(prepared.layout, request.settings, 1, seeded))
        seeded.manual_seed(request.seed or 0)
        shape = (oracle.config.patch_size, oracle.config.feat_dim)
        noise = start_noise(*shape, generator=seeded, dtype=torch.bfloat16).float()
        wide = first_patch(oracle.core(), ActiveRequest(prepared.layout, request.settings, 1, None, noise_NPD=noise))
        near.append(error(patch_PD, expected.float()))
        far.append(error(wide, expected.float()))
    assert sum(near) < sum(far)
    assert max(near) <= 0.2
