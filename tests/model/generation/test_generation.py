"""Generation: seeds, streams, threads, lengths, limits, retries, and what is refused."""

import threading

import pytest
import torch
from torch import Tensor

from model.generation.generator import Generator, Speech
from model.generation.request import Request, Settings
from model.generation.streaming import decode_next, open_decoder
from model.generation.voice import Voice
from model.layers.kv_cache import GROWTH
from tests.model.generation.spoken_cases import deaf, patches, request_of, same, sentences
from tests.support.oracle import Oracle
from voxmill.core.errors import UserError


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
    assert (first - speech.audio_T[: len(first)]).abs().max() > 1e-3  # the context has an effect


def test_two_threads_speak_as_one_after_another(oracle: Oracle, generator: Generator) -> None:
    requests = [request_of(oracle, case) for case in ("gen.zero_shot.a", "gen.ref_continuation.b")]
    alone = [generator.generate(request) for request in requests]
    results: list[list[Speech]] = [[], []]
    barrier = threading.Barrier(2)

    def speak(number: int) -> None:
        barrier.wait()
        for _ in range(3):
            results[number].append(generator.generate(requests[number]))

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert len(results[number]) == 3 and all(same(speech, alone[number]) for speech in results[number])


@pytest.mark.parametrize("shortest", [0, 2, 5])
def test_minimum_and_maximum_length(generator: Generator, shortest: int) -> None:
    """The stop predictor counts from patch min_len + 2 on; max_len ends the speech."""
    lengths = []
    for seed in range(8):
        settings = Settings(steps=3, min_len=shortest, max_len=9, attempts=1)
        speech = generator.generate(Request("hello test", settings=settings, seed=seed))
        lengths.append(len(speech.patches_GPD))
        assert speech.finish == "stop" or lengths[-1] == 9
        assert speech.audio_T.shape == (lengths[-1] * generator.config.patch_size * generator.vae.samples_per_latent,)
    assert min(lengths) >= shortest + 2 and max(lengths) <= 9
    assert len(generator.generate(Request("test", settings=Settings(steps=3, max_len=1), seed=0)).patches_GPD) == 1


def test_limit_of_the_text(oracle: Oracle, generator: Generator) -> None:
    """6 patches a token and 10, the description's tokens included, the prompt text's not."""
    tokens = len(generator.tokenizer.encode("hello test"))
    assert generator.prepare(Request("hello test")).limit == 6 * tokens + 10
    described = generator.prepare(Request("hello test", "sad"))
    assert described.limit == 6 * len(generator.tokenizer.encode("(sad)hello test")) + 10
    voice = Voice(prompt_text="a long text before it ", prompt_TPD=patches(oracle, 3))
    assert generator.prepare(Request("hello test", voice=voice)).limit == 6 * tokens + 10


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
    # One that leaves little: the speech ends at the model's length, with the finish "length".
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
