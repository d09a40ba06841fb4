"""Generation: the oracle in six modes, batches, streams, seeds, threads, limits, retries, prompt caches."""

import contextlib
import io
import threading
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from benchmarks.released import is_installed, released_model
from model.audio_vae import AudioVAE
from model.continuous_batch import ContinuousBatch
from model.generation import Generator, Speech
from model.kv_cache import GROWTH
from model.packed_linear import PackedLinear, can_pack, packed
from model.request import Request, Settings
from model.row import Row
from model.sampler import start_noise
from model.static_batch import StaticBatch
from model.streaming import context_of, decode, decode_next, open_decoder
from model.text_tokenizer import TextTokenizer
from model.voice import Voice
from model.voxcpm2 import VoxCPM2
from tests.model.oracle import Oracle, error, read_oracle
from voxmill.errors import UserError

MODES = ("zero_shot", "design", "reference", "controllable", "continuation", "ref_continuation")
CASES = [f"gen.{mode}.{setting}" for mode in MODES for setting in "ab"]


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return read_oracle()


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> VoxCPM2:
    return oracle.core()


@pytest.fixture(scope="module")
def vae(oracle: Oracle) -> AudioVAE:
    vae = AudioVAE(oracle.config.audio_vae_config)
    vae.load_state_dict(oracle.vae_weights)
    return vae.freeze()


@pytest.fixture(scope="module")
def generator(oracle: Oracle, model: VoxCPM2, vae: AudioVAE) -> Generator:
    return Generator(model, vae, TextTokenizer.from_folder(oracle.checkpoint))


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


def row_of(oracle: Oracle, generator: Generator, case: str, *, forced: bool = True) -> Row:
    """The case with the released code's noise and, if `forced`, its patches as the past."""
    request = request_of(oracle, case)
    prepared = generator.prepare(request)
    return Row(
        prepared.layout,
        request.settings,
        prepared.limit,
        None,
        noise_NPD=oracle[f"{case}.z"][:, 0].transpose(1, 2),
        forced_NPD=oracle[f"{case}.pred"] if forced else None,
    )


def finish(batch: ContinuousBatch) -> None:
    while batch.rows:
        batch.step()


def spoken(row: Row) -> Tensor:
    return torch.stack(row.patches)


def check(oracle: Oracle, row: Row, case: str) -> float:
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
    said, expected = oracle[f"{case}.pred"], oracle[f"{case}.audio"][0]
    with torch.no_grad():
        assert (decode(vae, said, context, seed=0) - expected).abs().max() <= 1e-5
        stream = open_decoder(vae, context, seed=0)
        pieces = [decode_next([stream], [patch])[0] for patch in said]
    assert {len(piece) for piece in pieces} == {len(expected) // len(said)}
    assert (torch.cat(pieces) - expected).abs().max() <= 1e-5
    assert len(context) == oracle.json[f"{case}.meta"]["context_len"]


def test_released_prompt_cache(oracle: Oracle, generator: Generator) -> None:
    """Two sentences in one voice: the second sees the first as its prompt (the oracle's cache.f1, cache.f2)."""
    voice = voice_of(oracle, "gen.reference.a")
    extended = voice.extended("hello test", oracle["cache.f1"])
    again = extended.extended(" 你好", oracle["cache.f2"])
    assert extended.prompt_text == "hello test" and torch.equal(extended.prompt_TPD, oracle["cache.f1"])
    assert again.prompt_text == "hello test 你好"
    assert torch.equal(again.prompt_TPD, torch.cat([oracle["cache.f1"], oracle["cache.f2"]]))
    assert again.reference_RPD is voice.reference_RPD
    layout = generator.prepare(Request("test", voice=again)).layout
    assert layout.num_target == len(oracle["cache.f1"]) + len(oracle["cache.f2"])
    with pytest.raises(ValueError, match="both or neither"):
        Voice(prompt_text="text without audio")


def test_joins_and_leaves_change_nothing(oracle: Oracle, generator: Generator) -> None:
    """All cases in one batch, joining at different steps, leaving as they finish: each as alone, to 1e-4."""
    batch = ContinuousBatch(packed(oracle.core()))
    rows = {case: row_of(oracle, generator, case) for case in CASES}
    waiting, sizes = list(rows), []
    while waiting or batch.rows:
        batch.join([rows[waiting.pop(0)] for _ in range(min(len(waiting), 1 + len(sizes) % 3))])
        sizes.append(len(batch.rows))
        batch.step()
    assert len(set(sizes)) >= 4  # the batch did grow and shrink
    for case, row in rows.items():
        assert check(oracle, row, case) <= 1e-4
        alone = row_of(oracle, generator, case)
        batch.join([alone])
        finish(batch)
        assert alone.stops == row.stops and alone.finish == row.finish
        assert (spoken(alone) - spoken(row)).abs().max() <= 5e-5


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_static_buffers_change_nothing(
    monkeypatch: pytest.MonkeyPatch, oracle: Oracle, model: VoxCPM2, generator: Generator, compiled: bool
) -> None:
    """The GPU's batch, run here without graphs: joins, leaves, two numbers of steps, and buffers that grow."""
    if compiled:  # whether all can be traced; what is made of it is the compiler's business
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    batch = StaticBatch(model, 4, capacity=16, compiled=compiled)
    rows = {case: row_of(oracle, generator, case) for case in (CASES[:4] if compiled else CASES)}
    waiting = list(rows)
    while waiting or batch.rows:
        free = batch.places - len(batch.rows)
        batch.join([rows[waiting.pop(0)] for _ in range(min(len(waiting), free))])
        assert len(batch.step()) <= 4
    for case, row in rows.items():
        assert check(oracle, row, case) <= 1e-4
    assert batch.capacity > 16
    left = row_of(oracle, generator, CASES[0])
    batch.join([left])
    batch.leave([left])
    assert batch.step() == [] and left.patches == []
    with pytest.raises(ValueError, match="4 places"):
        batch.join([row_of(oracle, generator, case) for case in CASES[:5]])


def test_static_generator(oracle: Oracle, model: VoxCPM2, vae: AudioVAE, generator: Generator) -> None:
    static = Generator(model, vae, generator.tokenizer, pack=False, static=True)
    plain = Generator(model, vae, generator.tokenizer, pack=False)
    for _ in range(2):  # the second time in the buffers of the first
        found, expected = (dict(which.generate_many(sentences(), batch_size=3)) for which in (static, plain))
        for number, speech in expected.items():
            assert found[number].finish == speech.finish and len(found[number].patches_GPD) == len(speech.patches_GPD)
            assert (found[number].patches_GPD - speech.patches_GPD).abs().max() <= 1e-3
    assert [batch.places for batch in static._idle] == [4]
    listener = static.stream_many(sentences(), batch_size=3)
    next(listener)
    listener.close()  # hangs up: the buffers are free for the next one
    assert [batch.places for batch in static._idle] == [4] and not static._idle[0].rows


def test_a_row_may_hang_up(oracle: Oracle, model: VoxCPM2, generator: Generator) -> None:
    batch = ContinuousBatch(model)
    rows = [row_of(oracle, generator, case) for case in CASES[:4]]
    batch.join(rows)
    batch.step()
    batch.leave(rows[:2])
    finish(batch)
    assert [len(row.patches) for row in rows[:2]] == [1, 1]
    assert all(row.finish is not None for row in rows[2:])
    assert max(check(oracle, row, case) for row, case in zip(rows[2:], CASES[2:4], strict=True)) <= 1e-4
    batch.join(rows[:0])
    batch.leave(rows[2:])
    assert batch.step() == []


def sentences(*, max_len: int = 7) -> list[Request]:
    """Requests of different lengths without voice, each with its own seed."""
    texts = ("hello test 你好世界", "hello test", "test", "hello hello test test", "你好")
    settings = Settings(steps=4, max_len=max_len, attempts=1)
    return [Request(text, settings=settings, seed=number) for number, text in enumerate(texts)]


def same(a: Speech, b: Speech) -> bool:
    return a.seed == b.seed and a.finish == b.finish and torch.equal(a.audio_T, b.audio_T)


def test_a_seed_gives_the_same_speech_and_leaves_the_global_generator_alone(generator: Generator) -> None:
    request = sentences()[0]
    before = torch.get_rng_state()
    first, second = generator.generate(request), generator.generate(request)
    assert same(first, second)
    other = generator.generate(Request(request.text, settings=request.settings, seed=99))
    assert not torch.equal(other.patches_GPD[0], first.patches_GPD[0])
    drawn = [generator.generate(Request(request.text, settings=request.settings)) for _ in range(2)]
    assert drawn[0].seed != drawn[1].seed
    assert same(drawn[0], generator.generate(Request(request.text, settings=request.settings, seed=drawn[0].seed)))
    assert torch.equal(before, torch.get_rng_state())


def test_a_seed_is_the_released_one(oracle: Oracle, generator: Generator) -> None:
    """Free-running with a seed draws the noise that the released code draws from it."""
    case = "gen.zero_shot.a"
    row = Row(generator.prepare(request_of(oracle, case)).layout, Settings(), 6, torch.Generator().manual_seed(4242))
    shape = (oracle.config.patch_size, oracle.config.feat_dim)
    for expected in oracle[f"{case}.z"]:
        assert torch.equal(row.next_noise(shape, torch.float32), expected.transpose(1, 2))
        row.patches.append(torch.empty(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_many_are_as_alone(oracle: Oracle, vae: AudioVAE, generator: Generator, dtype: torch.dtype) -> None:
    """A free-running request in any batch, to the last bit where weights are packed: nothing is there to be amplified."""
    speaker = Generator(oracle.core().to(dtype), vae, generator.tokenizer)
    requests = sentences(max_len=20)
    for size in (3, 5):
        found = dict(speaker.generate_many(iter(requests), batch_size=size))
        assert sorted(found) == list(range(len(requests)))
        for number, request in enumerate(requests):
            alone = speaker.generate(request)
            if can_pack(dtype):
                assert same(alone, found[number])
            else:  # later patches amplify the rounding of the first
                assert (alone.patches_GPD[0] - found[number].patches_GPD[0]).abs().max() <= 0.05
    assert len({len(speech.patches_GPD) for speech in found.values()}) > 1  # they left one by one


def test_streams_are_the_speech(generator: Generator) -> None:
    requests = sentences()
    pieces: dict[int, list[Tensor]] = {}
    ends: dict[int, str] = {}
    for piece in generator.stream_many(requests, batch_size=3):
        assert piece.index not in ends
        pieces.setdefault(piece.index, []).append(piece.audio_T)
        if piece.finish:
            ends[piece.index] = piece.finish
    whole = dict(generator.generate_many(requests, batch_size=3))
    for index, speech in whole.items():
        assert (torch.cat(pieces[index]) - speech.audio_T).abs().max() <= 1e-5
        assert ends[index] == speech.finish
    alone = torch.cat(list(generator.stream(requests[0])))
    assert (alone - generator.generate(requests[0]).audio_T).abs().max() <= 1e-5


def test_streams_of_continuations_start_warm(oracle: Oracle, generator: Generator) -> None:
    case = "gen.ref_continuation.a"
    request = request_of(oracle, case)
    speech, streamed = generator.generate(request), torch.cat(list(generator.stream(request)))
    assert (streamed - speech.audio_T).abs().max() <= 1e-5
    cold = open_decoder(generator.vae, patches(oracle, 0), seed=0)
    with torch.no_grad():
        first = decode_next([cold], [speech.patches_GPD[0]])[0]
    assert (first - speech.audio_T[: len(first)]).abs().max() > 1e-3  # the context is heard


def test_two_threads_speak_as_one_after_another(oracle: Oracle, generator: Generator) -> None:
    requests = [request_of(oracle, case) for case in ("gen.zero_shot.a", "gen.ref_continuation.b")]
    alone = [generator.generate(request) for request in requests]
    found: list[list[Speech]] = [[], []]
    barrier = threading.Barrier(2)

    def speak(number: int) -> None:
        barrier.wait()
        for _ in range(3):
            found[number].append(generator.generate(requests[number]))

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert len(found[number]) == 3 and all(same(speech, alone[number]) for speech in found[number])


@pytest.mark.parametrize("shortest", [0, 2, 5])
def test_minimum_and_maximum_length(generator: Generator, shortest: int) -> None:
    """The stop predictor is heard from patch min_len + 2 on; max_len ends the speech."""
    found = []
    for seed in range(8):
        settings = Settings(steps=3, min_len=shortest, max_len=9, attempts=1)
        speech = generator.generate(Request("hello test", settings=settings, seed=seed))
        found.append(len(speech.patches_GPD))
        assert speech.finish == "stop" or found[-1] == 9
        assert speech.audio_T.shape == (found[-1] * generator.config.patch_size * generator.vae.samples_per_latent,)
    assert min(found) >= shortest + 2 and max(found) <= 9
    assert len(generator.generate(Request("test", settings=Settings(steps=3, max_len=1), seed=0)).patches_GPD) == 1


def test_limit_of_the_text(oracle: Oracle, generator: Generator) -> None:
    """6 patches a token and 10, the description's tokens included, the prompt text's not."""
    tokens = len(generator.tokenizer.encode("hello test"))
    assert generator.prepare(Request("hello test")).limit == 6 * tokens + 10
    described = generator.prepare(Request("hello test", "sad"))
    assert described.limit == 6 * len(generator.tokenizer.encode("(sad)hello test")) + 10
    voice = Voice(prompt_text="a long text before it ", prompt_TPD=patches(oracle, 3))
    assert generator.prepare(Request("hello test", voice=voice)).limit == 6 * tokens + 10


def deaf(generator: Generator) -> Generator:
    """The same weights with a stop predictor that never stops."""
    model = VoxCPM2(generator.config)
    model.load_state_dict(read_oracle().weights)
    with torch.no_grad():
        model.stop_head.weight.zero_()  # equal logits: argmax says "go on"
    return Generator(model.eval(), generator.vae, generator.tokenizer)


def test_runaways_are_tried_again_with_the_next_seeds(generator: Generator) -> None:
    runaway = deaf(generator)
    settings = Settings(steps=2)
    tokens = len(generator.tokenizer.encode("test"))
    speech = runaway.generate(Request("test", settings=settings, seed=5))
    assert (speech.attempts, speech.seed, speech.finish) == (3, 7, "length")
    assert len(speech.patches_GPD) == 6 * tokens + 10
    once = settings.model_copy(update={"attempts": 1})
    assert same(runaway.generate(Request("test", settings=once, seed=7)), speech)
    # Too short to be a runaway: not tried again.
    capped = settings.model_copy(update={"max_len": 3})
    assert runaway.generate(Request("test", settings=capped, seed=5)).attempts == 1
    # Beside others in a batch, too; a stream is out and stays out.
    many = dict(runaway.generate_many([Request("test", settings=settings, seed=s) for s in (5, 11)], batch_size=2))
    assert [(many[n].attempts, many[n].seed) for n in range(2)] == [(3, 7), (3, 13)]
    streamed = list(runaway.stream_many([Request("test", settings=settings, seed=5)]))
    assert len(streamed) == 6 * tokens + 10 and streamed[-1].finish == "length"


def test_caches_grow(generator: Generator) -> None:
    """Longer than what a cache is made for: the same patches as from a cache that was wide enough from the start."""
    text = "hello test " * 12
    request = Request(text, settings=Settings(steps=2, max_len=GROWTH + 20, min_len=GROWTH + 20, attempts=1), seed=1)
    speech = deaf(generator).generate(request)
    assert len(speech.patches_GPD) == GROWTH + 20
    assert speech.audio_T.isfinite().all()


def test_what_does_not_fit_is_refused_with_its_length(oracle: Oracle, generator: Generator) -> None:
    longest = generator.config.max_length
    text = "hello test " * longest
    with pytest.raises(UserError, match=rf"{len(generator.tokenizer.encode(text)) + 1} positions .* takes {longest}"):
        generator.generate(Request(text))
    # A prefix that fits but leaves no room to speak.
    voice = Voice(reference_RPD=patches(oracle, longest - 6))
    with pytest.raises(UserError, match=rf"leave room for .* takes {longest}"):
        generator.generate(Request("test", voice=voice))
    # One that leaves little: the speech ends at the model's length and says so.
    voice = Voice(reference_RPD=patches(oracle, longest - 10))
    prepared = generator.prepare(Request("test", voice=voice))
    assert prepared.limit == longest - len(prepared.layout) + 1 >= 4
    speech = deaf(generator).generate(Request("test", voice=voice, settings=Settings(steps=2, attempts=1), seed=0))
    assert len(speech.patches_GPD) == prepared.limit and speech.finish == "length"


def test_bad_requests(oracle: Oracle, generator: Generator) -> None:
    with pytest.raises(UserError, match="text is empty"):
        generator.prepare(Request("  \n "))
    voice = Voice(prompt_text="a", prompt_TPD=patches(oracle, 1))
    with pytest.raises(UserError, match="description .* prompt"):
        generator.prepare(Request("hello", "sad", voice))


def test_requests_are_taken_as_places_become_free(generator: Generator) -> None:
    taken: list[int] = []

    def source() -> Iterator[Request]:
        for number, request in enumerate(sentences()):
            taken.append(number)
            yield request

    for done, _ in enumerate(generator.generate_many(source(), batch_size=2), start=1):
        assert len(taken) <= 2 + done
    assert taken == list(range(5))


def test_packed_twin(model: VoxCPM2) -> None:
    if not can_pack(torch.float32):
        pytest.skip("this machine's PyTorch has no packed kernels")
    twin = packed(model)
    assert isinstance(twin.base_lm.layers[0].self_attn.q_proj, PackedLinear)
    assert twin.base_lm.embed_tokens.weight is model.base_lm.embed_tokens.weight
    assert isinstance(model.base_lm.layers[0].self_attn.q_proj, torch.nn.Linear)  # the model is as it was
    hidden = torch.linspace(-2, 2, 3 * model.config.lm_config.hidden_size).view(3, -1)
    with torch.no_grad():
        for name in ("stop_proj", "lm_to_dit_proj"):
            plain, fast = (getattr(which, name)(hidden) for which in (model, twin))
            assert (plain - fast).abs().max() <= 1e-5 * plain.abs().max()
        mlp, fast_mlp = (which.base_lm.layers[0].mlp for which in (model, twin))
        assert (mlp(hidden) - fast_mlp(hidden)).abs().max() <= 1e-5 * mlp(hidden).abs().max()


def first_patch(model: VoxCPM2, row: Row) -> Tensor:
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
                tokens, text, feats.bfloat16(), audio, max_len=1,
                inference_timesteps=request.settings.steps, cfg_value=request.settings.guidance,
            )[1][0]  # fmt: skip
        prepared = generator.prepare(request)
        seeded = torch.Generator().manual_seed(request.seed or 0)
        found = first_patch(ours, Row(prepared.layout, request.settings, 1, seeded))
        seeded.manual_seed(request.seed or 0)
        shape = (oracle.config.patch_size, oracle.config.feat_dim)
        noise = start_noise(*shape, generator=seeded, dtype=torch.bfloat16).float()
        wide = first_patch(oracle.core(), Row(prepared.layout, request.settings, 1, None, noise_NPD=noise))
        near.append(error(found, expected.float()))
        far.append(error(wide, expected.float()))
    assert sum(near) < sum(far)
    assert max(near) <= 0.2
