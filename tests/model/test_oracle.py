"""The core against the oracle: every module, both losses, every gradient, the sampler, the batch of mixed modes.

The generator, AudioVAE, tokenizer and LoRA have their own oracle tests beside their other tests.
"""

import pytest
import torch
from torch import Tensor

from model.flow.flow_matching import FlowNoise
from model.flow.sampler import sample, schedule, swayed_grid
from model.layers.attention import Documents, Packed
from model.layers.kv_cache import KVCache
from model.layers.locdit import time_embedding
from model.sequence.layouts import Layout, arrange
from model.sequence.packing import pack
from model.voxcpm2 import VoxCPM2
from samples.dense import DenseBatch, compact, dense_losses, pad, rows_of
from tests.support.oracle import Oracle, error

PROGRESS = (0.0, 0.7)


def packed_span(hidden_BTC: Tensor, cache: KVCache | None = None) -> Packed:
    return Packed(Documents((hidden_BTC.shape[1],) * hidden_BTC.shape[0]), cache)


def batch_of(oracle: Oracle) -> DenseBatch:
    names = ("text_tokens", "audio_feats", "text_mask", "audio_mask", "loss_mask", "labels")
    return DenseBatch(*(oracle[f"train.batch.{name}"] for name in names))


def flow_noise_of(oracle: Oracle, progress: float) -> FlowNoise:
    names = ("00.rand", "01.rand", "02.randn_like", "03.randn", "04.randn", "05.rand", "06.randn_like")
    found = [oracle[f"train.p{progress}.rng.{name}"] for name in names]
    return FlowNoise(*(x.transpose(1, 2) if x.ndim == 3 else x for x in found))


@torch.no_grad()
def test_local_encoder(oracle: Oracle, model: VoxCPM2) -> None:
    feats_BTPD = oracle["mod.feats"]
    encoded = model.feat_encoder(feats_BTPD.flatten(0, 1)).unflatten(0, feats_BTPD.shape[:2])
    assert error(encoded, oracle["mod.feat_encoder"]) <= 1e-5
    assert error(model.enc_to_lm_proj(encoded), oracle["mod.enc_to_lm"]) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name", ["base_lm", "residual_lm"])
def test_language_models(oracle: Oracle, model: VoxCPM2, name: str) -> None:
    hidden_BTC = oracle["mod.lm_in"]
    stack = getattr(model, name)
    found = stack(hidden_BTC.flatten(0, 1), packed_span(hidden_BTC)).unflatten(0, hidden_BTC.shape[:2])
    assert error(found, oracle[f"mod.{name}"]) <= 1e-5


@torch.no_grad()
def test_cached_keys_and_values(oracle: Oracle, model: VoxCPM2) -> None:
    hidden_BTC = oracle["mod.lm_in"]
    rows, length = hidden_BTC.shape[:2]
    cache = KVCache.empty(model.base_lm.config, rows=rows, capacity=length, dtype=torch.float32)
    model.base_lm(hidden_BTC.flatten(0, 1), packed_span(hidden_BTC, cache))
    assert error(cache.keys_RKTD[0], oracle["mod.base_lm.k0"]) <= 1e-5
    assert error(cache.values_RKTD[0], oracle["mod.base_lm.v0"]) <= 1e-5


@torch.no_grad()
def test_quantisation_and_stop(oracle: Oracle, model: VoxCPM2) -> None:
    assert error(model.fsq_layer(oracle["mod.base_lm"]), oracle["mod.fsq"]) <= 1e-5
    assert error(model.stop_logits(oracle["mod.base_lm"]), oracle["mod.stop_logits"]) <= 1e-5


@torch.no_grad()
def test_local_diffusion_transformer(oracle: Oracle, model: VoxCPM2) -> None:
    estimator = model.feat_decoder.estimator
    time_N, span_N = oracle["mod.dit.t"], oracle["mod.dit.dt"]
    assert error(time_embedding(time_N, size=estimator.size), oracle["mod.dit.time_emb"]) <= 1e-5
    velocity = estimator(
        oracle["mod.dit.x"].transpose(1, 2),
        oracle["mod.dit.mu"].unflatten(1, (2, -1)),
        estimator.time_token(time_N, span_N, dtype=torch.float32),
        oracle["mod.dit.cond"].transpose(1, 2),
    )
    assert error(velocity.transpose(1, 2), oracle["mod.dit.out"]) <= 1e-5


def test_sampler(oracle: Oracle, model: VoxCPM2) -> None:
    assert error(swayed_grid(10, dtype=torch.float32), oracle["mod.cfm.t_span10"]) <= 1e-6
    names = [name for name in oracle.names("mod.cfm.n") if not name.endswith(".z")]
    assert len(names) >= 4
    for name in names:
        steps, guidance, zero_star = name.removeprefix("mod.cfm.n").split("_")
        patch_RPD = sample(
            model.feat_decoder.estimator,
            oracle["mod.dit.mu"].unflatten(1, (2, -1)),
            oracle["mod.dit.cond"].transpose(1, 2),
            oracle[f"{name}.z"].transpose(1, 2),
            schedule(int(steps), dtype=torch.float32, device="cpu", zero_star=zero_star == "zs1"),
            guidance=float(guidance.removeprefix("cfg")),
            zero_star=zero_star == "zs1",
            mean_mode=model.config.dit_config.dit_mean_mode,
        )
        assert error(patch_RPD.transpose(1, 2), oracle[name]) <= 1e-5, name


def layouts_of(oracle: Oracle) -> dict[int, Layout]:
    """The oracle's samples by their row, built again from their parts.

    Without the row of `is_prompt`, a row without any loss, which `arrange` does not build.
    """
    batch, config = batch_of(oracle), oracle.config
    layouts = {}
    for row, text in enumerate(oracle.json["train.text_ids"]):
        patches_TPD, num_target = batch.patches_BTPD[row][batch.audio_BT[row] > 0], int(batch.loss_BT[row].sum())
        if num_target:
            layouts[row] = arrange(
                text,
                reference_RPD=patches_TPD[:-num_target] if len(patches_TPD) > num_target else None,
                target_GPD=patches_TPD[-num_target:],
                closed=True,
                patch_shape=(config.patch_size, config.feat_dim),
                max_length=config.max_length,
            )
    return layouts


def test_layouts_make_the_oracles_batch(oracle: Oracle) -> None:
    layouts = layouts_of(oracle)
    assert len(layouts) >= 2
    for row, layout in layouts.items():
        for name, value in vars(pad([layout])).items():
            wanted = getattr(batch_of(oracle), name)[row : row + 1]
            length = value.shape[1]
            assert torch.equal(value, wanted[:, :length].to(value)), (row, name)
            assert not wanted[:, length:].any(), (row, name)


@pytest.mark.parametrize("progress", PROGRESS)
def test_dense_activations_losses_gradients(oracle: Oracle, model: VoxCPM2, progress: float) -> None:
    velocities: list[Tensor] = []
    handle = model.feat_decoder.estimator.register_forward_hook(lambda _, __, out: velocities.append(out))
    model.zero_grad()
    diffusion, stop, found = dense_losses(model, batch_of(oracle), flow_noise_of(oracle, progress), progress=progress)
    handle.remove()
    if not model.config.dit_config.dit_mean_mode:
        found["feat_decoder.estimator"] = velocities[0].transpose(1, 2)
    prefix = f"train.p{progress}.act."
    wanted = {name.removeprefix(prefix): oracle[name] for name in oracle.names(prefix)}
    if model.config.dit_config.dit_mean_mode:  # inside the forward derivative there is no plain output to compare
        wanted.pop("feat_decoder.estimator", None)
    assert wanted.keys() == found.keys()
    for name, activation in wanted.items():
        assert error(found[name], activation) <= 1e-5, name
    check_losses(oracle, model, diffusion, stop, progress)


@pytest.mark.parametrize("progress", PROGRESS)
def test_packed_losses_gradients(oracle: Oracle, model: VoxCPM2, progress: float) -> None:
    batch = batch_of(oracle)
    flow_noise = rows_of(flow_noise_of(oracle, progress), batch.loss_BT.flatten() > 0)
    model.zero_grad()
    diffusion, stop = model(compact(batch), flow_noise=flow_noise, progress=progress).mean()
    check_losses(oracle, model, diffusion, stop, progress)


def check_losses(oracle: Oracle, model: VoxCPM2, diffusion: Tensor, stop: Tensor, progress: float) -> None:
    assert error(diffusion, oracle[f"train.p{progress}.loss_diff"]) <= 1e-5
    assert error(stop, oracle[f"train.p{progress}.loss_stop"]) <= 1e-5
    (diffusion + stop).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    prefix = f"train.p{progress}.grad."
    wanted = {name.removeprefix(prefix): oracle[name] for name in oracle.names(prefix)}
    if not wanted:
        assert progress != PROGRESS[0], "the oracle has gradients of the first progress only"
        return
    assert wanted.keys() == found.keys() - set(oracle.json[f"train.p{progress}.grads_none"])
    for name, gradient in wanted.items():
        computed = found[name]
        assert computed is not None and error(computed, gradient) <= 1e-4, name


def test_pack_takes_what_losses_read(oracle: Oracle, model: VoxCPM2) -> None:
    """`pack` leaves out each last patch and AUDIO_END; losses and gradients stay."""
    flow_noise = rows_of(flow_noise_of(oracle, 0.0), batch_of(oracle).loss_BT.flatten() > 0)
    model.zero_grad()
    diffusion, stop = model(pack(list(layouts_of(oracle).values())), flow_noise=flow_noise).mean()
    check_losses(oracle, model, diffusion, stop, 0.0)
