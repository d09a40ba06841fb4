"""AudioVAE V2 against the oracle, and against the released code at configurations drawn at random."""

import random
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from model.codec import audio_vae
from model.codec.audio_vae import AudioVAE, push_together
from model.config import AudioVAEConfig
from samples.released import is_installed, released_vae
from tests.support.oracle import Oracle, error, read_oracle

TINY = AudioVAEConfig(encoder_dim=4, encoder_rates=(2, 4), latent_dim=6, decoder_dim=16, decoder_rates=(4, 3, 2))


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return read_oracle()


@pytest.fixture(scope="module")
def vae(oracle: Oracle) -> AudioVAE:
    actual = AudioVAE(oracle.config.audio_vae_config)
    actual.load_state_dict(oracle.vae_weights)
    return actual.freeze()


def stir(module: nn.Module, seed: int) -> None:
    """Weights away from their first values, where ones and zeros would hide what is not read."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def tiny(**changes: Any) -> AudioVAE:
    torch.manual_seed(1)
    actual = AudioVAE(TINY.model_copy(update=changes))
    stir(actual, seed=1)
    return actual


@torch.no_grad()
def test_oracle_encoder(oracle: Oracle, vae: AudioVAE) -> None:
    mean, log_variance = vae.encode_distribution(oracle["vae.in"])
    assert error(mean, oracle["vae.mu"]) <= 1e-5
    assert error(log_variance, oracle["vae.logvar"]) <= 1e-5
    assert torch.equal(vae.encode(oracle["vae.in"]), mean)


@torch.no_grad()
def test_oracle_decoder(oracle: Oracle, vae: AudioVAE) -> None:
    names = oracle.names("vae.dec_")
    assert len(names) == 6
    conditioned = vae.config.sr_bin_boundaries is not None
    for name in names:
        rate = int(name.removeprefix("vae.dec_")) if conditioned else None
        audio_BT = vae.decode(oracle["vae.z"], sample_rate=rate)
        assert error(audio_BT, oracle[name]) <= 1e-5, name
    difference = error(vae.decode(oracle["vae.z"], sample_rate=16000 if conditioned else None), oracle["vae.dec_48000"])
    assert (difference > 1e-3) == conditioned
    assert error(vae.decode(oracle["vae.z"]), oracle[f"vae.dec_{vae.config.out_sample_rate}"]) <= 1e-5


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_oracle_stream(oracle: Oracle, vae: AudioVAE, cut: int) -> None:
    stream = vae.decoder_stream()
    pieces = oracle["vae.z"][:1].split(cut, dim=-1)
    audio = [stream.push(piece) for piece in pieces]
    assert [x.shape[1] for x in audio] == [piece.shape[2] * vae.samples_per_latent for piece in pieces]
    assert error(torch.cat(audio, dim=1), oracle["vae.stream"]) <= 1e-5


@torch.no_grad()
def test_streams_share_a_pass_and_come_and_go(oracle: Oracle, vae: AudioVAE) -> None:
    first, second = oracle["vae.z"][:1], oracle["vae.z"][1:]
    length = first.shape[-1]
    rate = 16000 if vae.config.sr_bin_boundaries else None
    early, late = vae.decoder_stream(), vae.decoder_stream(sample_rate=rate)
    actual = [early.push(first[..., :4])]
    both = push_together([early, late], torch.cat([first[..., 4:8], second[..., :4]]))
    actual.append(both[:1])
    actual.append(early.push(first[..., 8:]))
    rest = late.push(second[..., 4:])
    assert error(torch.cat(actual, dim=1), vae.decode(first)) <= 1e-5
    assert error(torch.cat([both[1:], rest], dim=1), vae.decode(second, sample_rate=rate)) <= 1e-5
    assert early.push(first[..., :1]).shape == (1, vae.samples_per_latent) and length > 8
    with pytest.raises(ValueError, match="2 rows of latents for streams of"):
        early.push(oracle["vae.z"])


def test_long_audio_in_pieces_equals_the_whole() -> None:
    model = tiny()
    frames = 2 * audio_vae.PIECE + 5
    audio_BT = torch.randn(2, frames * model.hop - 3).clamp(-1, 1)
    whole = model.encode(audio_BT)  # with gradients there is one piece
    decoded = model.decode(whole)
    with torch.no_grad():
        assert error(model.encode(audio_BT), whole) <= 1e-5
        assert error(model.decode(whole), decoded) <= 1e-5
    assert whole.shape == (2, TINY.latent_dim, frames)


@torch.no_grad()
def test_frozen_weights_are_fresh_after_training_and_loading() -> None:
    model = tiny().freeze()
    latents_BDL = torch.randn(1, TINY.latent_dim, 3)
    before = model.decode(latents_BDL)
    assert error(tiny().decode(latents_BDL), before) <= 1e-6
    other = {name: value * 1.5 if name.endswith("_g") else value for name, value in model.state_dict().items()}
    model.load_state_dict(other)
    after = model.decode(latents_BDL)
    assert error(after, before) > 1e-3
    assert error(model.freeze().decode(latents_BDL), after) <= 1e-5
    model.train()
    model.decoder.get_submodule(f"model.{len(model.decoder.model) - 1}").get_parameter("weight_g").mul_(0.0)
    assert error(model.decode(latents_BDL), after) > 1e-3
    assert set(other) == set(model.state_dict()) == set(AudioVAE(TINY).state_dict())


def test_wrong_calls_and_configurations() -> None:
    with pytest.raises(ValueError, match="audio must be"):
        tiny().encode(torch.zeros(1, 0))
    plain = tiny(sr_bin_boundaries=None)
    assert not [name for name in plain.state_dict() if "sr_" in name]
    with pytest.raises(ValueError, match="no sample-rate condition"):
        plain.decode(torch.zeros(1, TINY.latent_dim, 1), sample_rate=16000)
    with pytest.raises(ValueError, match="no sample-rate condition"):
        plain.decoder_stream(sample_rate=16000)
    with pytest.raises(ValidationError, match="cond_out_layer"):
        AudioVAEConfig(cond_type="concat")
    with pytest.raises(ValidationError, match="sr_bin_boundaries"):
        AudioVAEConfig(sr_bin_boundaries=(30000, 20000))


@torch.no_grad()
def test_noise_belongs_to_its_row() -> None:
    model, latents_BDL = tiny(use_noise_block=True), torch.randn(2, TINY.latent_dim, 3)

    def seeded(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    state = torch.get_rng_state()
    both = model.decode(latents_BDL, generators=seeded(3, 4))
    alone = model.decode(latents_BDL[1:], generators=seeded(4))
    assert error(both[1:], alone) <= 1e-5
    assert error(model.decode(latents_BDL[1:], generators=seeded(5)), alone) > 1e-3
    streamed = model.decoder_stream(generators=seeded(4)).push(latents_BDL[1:])
    assert error(streamed, alone) <= 1e-5
    assert torch.equal(torch.get_rng_state(), state)


def draw_config(seed: int) -> AudioVAEConfig:
    """A small AudioVAE in which every field takes some value; four seeds in a row have the four condition types."""
    choose = random.Random(seed)
    kind = ("scale_bias", "scale_bias_init", "add", "concat")[seed % 4]
    rates = tuple(choose.choice([1, 2, 3, 5]) for _ in range(choose.choice([2, 3])))
    return AudioVAEConfig(
        encoder_dim=choose.choice([4, 6]),
        encoder_rates=rates,
        latent_dim=choose.choice([4, 10]),
        decoder_dim=choose.choice([16, 24]),
        decoder_rates=tuple(choose.choice([2, 3, 5]) for _ in range(choose.choice([2, 3]))),
        depthwise=choose.random() < 0.5,
        use_noise_block=choose.random() < 0.4,
        sr_bin_boundaries=None if seed % 8 == 5 else (20000, 30000, 40000)[: choose.choice([1, 2, 3])],
        cond_type=kind,
        cond_dim=choose.choice([3, 8]),
        cond_out_layer=kind == "concat" or choose.random() < 0.5,
        out_sample_rate=choose.choice([24000, 48000]),
    )


@pytest.mark.skipif(not is_installed(), reason="the released code (voxcpm) is not installed")
@pytest.mark.parametrize("seed", range(12))
def test_peer(seed: int) -> None:
    config = draw_config(seed)
    torch.manual_seed(seed)
    ours = AudioVAE(config)
    stir(ours, seed)
    peer = released_vae(ours)
    generator = torch.Generator().manual_seed(seed)
    audio_BT = torch.randn(1, 9 * ours.hop - (ours.hop > 1), generator=generator).clamp(-1, 1)
    rate = (16000, 24000, 36000, 44100)[seed % 4] if config.sr_bin_boundaries else None

    def results(encoded: Tensor, log_variance: Tensor, decode: Any, module: nn.Module) -> dict[str, Tensor]:
        torch.manual_seed(seed)  # the noise block draws from the global generator
        audio = decode(encoded)
        (audio.square().mean() + log_variance.square().mean()).backward()
        actual = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
        return {"mean": encoded, "log_variance": log_variance, "audio": audio} | actual

    released = peer.encoder(peer.preprocess(audio_BT[:, None], config.sample_rate))
    tensor = None if rate is None else torch.tensor([rate], dtype=torch.int32)
    expected = results(released["mu"], released["logvar"], lambda z: peer.decode(z, tensor), peer)
    actual = results(*ours.encode_distribution(audio_BT), lambda z: ours.decode(z, sample_rate=rate), ours)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert error(actual[name], value) <= (1e-5 if name in ("mean", "log_variance", "audio") else 1e-4), name
    if not config.use_noise_block:
        stream = ours.freeze().decoder_stream(sample_rate=rate)  # frozen weights are laid out otherwise
        streamed = [stream.push(piece) for piece in actual["mean"].detach().split(2, dim=-1)]
        assert error(torch.cat(streamed, dim=1), expected["audio"]) <= 1e-5
