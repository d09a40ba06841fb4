"""The oracle's cases of generation as requests and rows, and short requests of one's own."""

import torch
from torch import Tensor

from model.generation.active_request import ActiveRequest
from model.generation.continuous_batch import ContinuousBatch
from model.generation.generator import Generator, Speech
from model.generation.request import Request, Settings
from model.generation.voice import Voice
from model.voxcpm2 import VoxCPM2
from tests.support.oracle import Oracle, error, read_oracle

MODES = ("zero_shot", "design", "reference", "controllable", "continuation", "ref_continuation")
CASES = [f"gen.{mode}.{setting}" for mode in MODES for setting in "ab"]


def voice_of(oracle: Oracle, case: str) -> Voice:
    """The voice of a case, from the latents that the released code computed."""
    keywords = oracle.json[f"{case}.meta"]["kwargs"]
    audio_T, feats_TPD = oracle[f"{case}.audio_mask"][0].bool(), oracle[f"{case}.feat"][0]
    num_prompt = next(n for n, is_audio in enumerate(audio_T.flip(0)) if not is_audio)
    prompt_TPD = feats_TPD[len(feats_TPD) - num_prompt :] if num_prompt else None
    before_T = audio_T[: len(audio_T) - num_prompt]
    reference_RPD = feats_TPD[: len(before_T)][before_T] if before_T.any() else None
    return Voice(reference_RPD, keywords.get("prompt_text"), prompt_TPD)


def request_of(oracle: Oracle, case: str) -> Request:
    keywords = oracle.json[f"{case}.meta"]["kwargs"]
    text, description = keywords["target_text"], None
    if text.startswith("("):
        description, text = text[1:].split(")", 1)
    settings = Settings(
        steps=keywords["inference_timesteps"],
        guidance=keywords["cfg_value"],
        min_len=keywords.get("min_len", 2),
        max_len=keywords["max_len"],
        attempts=1,
    )
    return Request(text, description, voice_of(oracle, case), settings, keywords["seed"])


def row_of(oracle: Oracle, generator: Generator, case: str, *, forced: bool = True) -> ActiveRequest:
    """The case with the released code's noise and, if `forced`, its patches as the past."""
    request = request_of(oracle, case)
    prepared = generator.prepare(request)
    return ActiveRequest(
        prepared.layout,
        request.settings,
        prepared.limit,
        None,
        noise_NPD=oracle[f"{case}.z"][:, 0].transpose(1, 2),
        forced_NPD=oracle[f"{case}.pred"] if forced else None,
    )


def finish(batch: ContinuousBatch) -> None:
    while batch.active:
        batch.step()


def spoken(row: ActiveRequest) -> Tensor:
    return torch.stack(row.patches)


def check(oracle: Oracle, row: ActiveRequest, case: str) -> float:
    """The relative difference to the oracle; every stop decision is equal, and so is the reason of the end."""
    expected = oracle[f"{case}.pred"]
    limit = oracle.json[f"{case}.meta"]["effective_max_len"]
    assert spoken(row).shape == expected.shape
    # The released loop ends at the first stop after min_len or at its limit: that fixes every decision that counted.
    first = row.settings.min_len + 1
    assert not any(row.stops[first:-1])
    assert row.finish == ("stop" if row.stops[-1] and len(row.stops) > first else "length")
    assert (row.finish == "length") <= (len(expected) == limit)
    return error(spoken(row), expected)


def patches(oracle: Oracle, count: int) -> Tensor:
    """So many patches of zeros."""
    return torch.zeros(count, oracle.config.patch_size, oracle.config.feat_dim)


def sentences(*, max_len: int = 7) -> list[Request]:
    """Requests of different lengths without voice, each with its own seed."""
    texts = ("hello test 你好世界", "hello test", "test", "hello hello test test", "你好")
    settings = Settings(steps=4, max_len=max_len, attempts=1)
    return [Request(text, settings=settings, seed=number) for number, text in enumerate(texts)]


def same(a: Speech, b: Speech) -> bool:
    return a.seed == b.seed and a.finish == b.finish and torch.equal(a.audio_T, b.audio_T)


def deaf(generator: Generator) -> Generator:
    """The same weights with a stop predictor that never stops."""
    model = VoxCPM2(generator.config)
    model.load_state_dict(read_oracle().weights)
    with torch.no_grad():
        model.stop_head.weight.zero_()  # equal logits: argmax is 0, continue
    return Generator(model.eval(), generator.vae, generator.tokenizer)
