"""Packed rows: equal to the padded path, and no document notices another."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.flow.flow_matching import FlowNoise, draw_flow_noise, times
from model.flow.losses import SAMPLE_SUMS, LossSums, sample_sums
from model.layers.attention import Packed
from model.layers.transformer import recompute_layers
from model.presets import preset
from model.sequence.layouts import Layout, arrange
from model.sequence.packing import PackedBatch, pack
from model.voxcpm2 import VoxCPM2
from samples.dense import dense_losses, pad, rows_of
from tests.support.oracle import error

CONFIG = preset("tiny")
SHAPE = (CONFIG.patch_size, CONFIG.feat_dim)
SAMPLES = [(3, 0, 5), (2, 4, 1), (6, 2, 3)]
"""Text tokens, reference patches, target patches."""


@pytest.fixture(scope="module")
def model() -> VoxCPM2:
    torch.manual_seed(0)
    return VoxCPM2(CONFIG)


def sample(num_text: int, num_reference: int, num_target: int) -> Layout:
    return arrange(
        torch.randint(200, 600, (num_text,)).tolist(),
        reference_RPD=torch.randn(num_reference, *SHAPE) if num_reference else None,
        target_GPD=torch.randn(num_target, *SHAPE),
        closed=True,
        patch_shape=SHAPE,
        max_length=CONFIG.max_length,
    )


def samples() -> list[Layout]:
    torch.manual_seed(1)
    return [sample(*sizes) for sizes in SAMPLES]


def gradients(model: VoxCPM2, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, materialize_grads=True), strict=True))


def test_what_is_packed() -> None:
    layouts = samples()
    batch = pack(layouts)
    # A target's last patch and the closing token are no input: text + 101 + references and marks + targets but one.
    lengths = [text + 1 + (reference + 2 if reference else 0) + target - 1 for text, reference, target in SAMPLES]
    assert batch.documents.lengths == tuple(lengths)
    assert batch.documents.positions_N.tolist() == [position for length in lengths for position in range(length)]
    assert len(batch.audio_APD) == sum(reference + target - 1 for _, reference, target in SAMPLES)
    assert not batch.tokens_N[batch.audio_at_A].any()
    assert len(batch.target_GPD) == len(batch.source_G) == sum(target for *_, target in SAMPLES)
    assert batch.stop_G.nonzero()[:, 0].tolist() == [4, 5, 8]
    assert batch.source_G.tolist() == [3, 4, 5, 6, 7, 16, 27, 28, 29]
    assert batch.tokens_N[batch.source_G[[0, 5, 6]]].tolist() == [101] * 3  # 101 predicts a first patch,
    assert set(batch.source_G[[1, 2, 3, 4, 7, 8]].tolist()) <= set(batch.audio_at_A.tolist())  # a patch the next
    firsts = [0, 5, 6]
    assert not batch.condition_GPD[firsts].any()
    rest = [row for row in range(9) if row not in firsts]
    assert torch.equal(batch.condition_GPD[rest], batch.target_GPD[[row - 1 for row in rest]])


def test_open_layouts_are_no_training_samples() -> None:
    layout = arrange([300], closed=False, patch_shape=SHAPE, max_length=9)
    with pytest.raises(ValueError, match="closed=True"):
        pack([layout])
    with pytest.raises(ValueError, match="one or more"):
        pack([])


@pytest.mark.parametrize("progress", [0.0, 0.6])
def test_equal_to_the_padded_path(model: VoxCPM2, progress: float) -> None:
    layouts = samples()
    padded = pad(layouts)
    flow_noise = draw_flow_noise(padded.patches_BTPD.flatten(0, 1), CONFIG.dit_config.cfm_config)
    diffusion, stop, _ = dense_losses(model, padded, flow_noise, progress=progress)
    sums: LossSums = model(
        pack(layouts), flow_noise=rows_of(flow_noise, padded.loss_BT.flatten() > 0), progress=progress
    )
    actual = sums.mean()
    assert error(actual[0], diffusion) <= 1e-5 and error(actual[1], stop) <= 1e-5
    assert (sums.num_patches, sums.num_frames) == (9, 9 * CONFIG.patch_size)
    wanted = gradients(model, diffusion + stop)
    for name, gradient in gradients(model, sums.total()).items():
        assert error(gradient, wanted[name]) <= 1e-4, name


def test_sums_of_batches_are_sums_of_samples(model: VoxCPM2) -> None:
    """So a global sum over a global count does not depend on who was packed with whom."""
    layouts = samples()
    batch = pack(layouts)
    flow_noise = draw_flow_noise(batch.target_GPD, CONFIG.dit_config.cfm_config)
    with torch.no_grad():
        whole = model(batch, flow_noise=flow_noise)
        rows = torch.arange(9).split([target for *_, target in SAMPLES])
        parts = [model(pack([one]), flow_noise=rows_of(flow_noise, r)) for one, r in zip(layouts, rows, strict=True)]
    assert error(sum(part.diffusion for part in parts), whole.diffusion) <= 1e-6
    assert error(sum(part.stop for part in parts), whole.stop) <= 1e-6
    assert sum(part.num_frames for part in parts) == whole.num_frames


def test_sums_by_sample_are_those_of_the_samples_and_change_no_bit(model: VoxCPM2) -> None:
    layouts = samples()
    batch = pack(layouts)
    flow_noise = draw_flow_noise(batch.target_GPD, CONFIG.dit_config.cfm_config)
    plain, by_sample = model(batch, flow_noise=flow_noise), model(batch, flow_noise=flow_noise, by_sample=True)
    assert plain.samples_SK is None and torch.equal(plain.diffusion, by_sample.diffusion)
    assert torch.equal(plain.stop, by_sample.stop)
    wanted, actual = gradients(model, plain.total()), gradients(model, by_sample.total())
    assert all(torch.equal(actual[name], gradient) for name, gradient in wanted.items())
    assert not by_sample.samples_SK.requires_grad and by_sample.samples_SK.shape == (3, len(SAMPLE_SUMS))
    rows = torch.arange(9).split([target for *_, target in SAMPLES])
    for one, r, sums_K in zip(layouts, rows, by_sample.samples_SK, strict=True):
        alone = model(pack([one]), flow_noise=rows_of(flow_noise, r))
        sums = dict(zip(SAMPLE_SUMS, sums_K.tolist(), strict=True))
        assert sums["diffusion"] == pytest.approx(float(alone.diffusion), rel=1e-5)
        assert sums["stop"] == pytest.approx(float(alone.stop), rel=1e-5)
        assert sums["num_patches"] == alone.num_patches and sums["stops_found"] + sums["stops_missed"] == 1


def test_stops_are_counted_at_the_last_patch_and_before_it() -> None:
    logits_G2 = torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0], [1, 0], [0, 1]])
    stop_G, sample_G = torch.tensor([0, 0, 1, 0, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 2])
    sums_SK = sample_sums(torch.zeros(6, 4), logits_G2, stop_G, sample_G, num_samples=3)
    assert sums_SK[:, 2:].tolist() == [[3, 1, 1, 0], [2, 0, 0, 1], [1, 1, 0, 0]]


def outputs(model: VoxCPM2, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    span = Packed(batch.documents)
    return model.backbone(batch.tokens_N, batch.audio_APD, batch.audio_at_A, span, span)


def disturbed(batch: PackedBatch, document: int) -> PackedBatch:
    """Another text and other audio in one document."""
    ids_N = batch.documents.ids_N
    text_N = (ids_N == document) & (batch.tokens_N != 0)
    hit_A = ids_N[batch.audio_at_A] == document
    return replace(
        batch,
        tokens_N=torch.where(text_N, batch.tokens_N + 17, batch.tokens_N),
        audio_APD=torch.where(hit_A[:, None, None], batch.audio_APD * -3 + 1, batch.audio_APD),
    )


@pytest.mark.parametrize("document", range(3))
def test_a_neighbours_change_changes_exactly_nothing(model: VoxCPM2, document: int) -> None:
    batch = pack(samples())
    others_N = batch.documents.ids_N != document
    with torch.no_grad():
        before, after = outputs(model, batch), outputs(model, disturbed(batch, document))
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[others_N], new[others_N])
        assert (old[~others_N] != new[~others_N]).any(dim=1).all()


@pytest.mark.parametrize("document", range(3))
def test_no_gradient_crosses_documents(model: VoxCPM2, document: int) -> None:
    batch = pack(samples())
    audio_APD = batch.audio_APD.clone().requires_grad_()
    own_N = batch.documents.ids_N == document
    hidden_NC, residual_NC = outputs(model, replace(batch, audio_APD=audio_APD))
    (hidden_NC[own_N].square().sum() + residual_NC[own_N].square().sum()).backward()
    own_A = own_N[batch.audio_at_A]
    gradient_APD = audio_APD.grad
    assert gradient_APD is not None and not gradient_APD[~own_A].any()
    assert gradient_APD[own_A].flatten(1).any(dim=1).all() and own_A.any()


@pytest.mark.parametrize("autocast", [True, False])
def test_training_in_half_precision(model: VoxCPM2, autocast: bool) -> None:
    """Under autocast (fp32 weights, as the released trainer) and with bf16 weights: losses in fp32, near the exact."""
    batch = pack(samples())
    flow_noise = draw_flow_noise(
        batch.target_GPD, CONFIG.dit_config.cfm_config, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        exact = model(batch, flow_noise=flow_noise).mean()
    half = copy.deepcopy(model)
    if not autocast:
        half.to(torch.bfloat16)
        batch = batch.to("cpu", torch.bfloat16)
        flow_noise = FlowNoise(**{name: value.bfloat16() for name, value in vars(flow_noise).items()})
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        sums = half(batch, flow_noise=flow_noise)
    for actual, wanted in zip(sums.mean(), exact, strict=True):
        assert actual.dtype == torch.float32 and error(actual, wanted) <= 3e-2
    sums.total().backward()
    gradients = [parameter.grad for parameter in half.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@torch.no_grad()
def test_nothing_sees_what_comes_later(model: VoxCPM2) -> None:
    batch = pack(samples())
    last = batch.documents.ends[0]
    which = int((batch.audio_at_A == last).nonzero())
    changed = batch.audio_APD.clone()
    changed[which] += 1
    before, after = outputs(model, batch), outputs(model, replace(batch, audio_APD=changed))
    for old, new in zip(before, after, strict=True):
        differs_N = (old != new).any(dim=1)
        assert differs_N.nonzero()[:, 0].tolist() == [last]


@pytest.mark.parametrize(("mean_mode", "share"), [(False, 1.0), (False, 0.5), (True, 1.0)])
def test_recomputed_activations_change_no_gradient(mean_mode: bool, share: float) -> None:
    dit = CONFIG.dit_config.model_copy(update={"dit_mean_mode": mean_mode})
    torch.manual_seed(0)
    model = VoxCPM2(CONFIG.model_copy(update={"dit_config": dit}))
    batch = pack(samples())
    flow_noise = draw_flow_noise(batch.target_GPD, dit.cfm_config)
    kept = gradients(model, model(batch, flow_noise=flow_noise, progress=0.5).total())
    recompute_layers(model, share)
    recomputed = gradients(model, model(batch, flow_noise=flow_noise, progress=0.5).total())
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept)


def test_flow_noise_comes_from_the_given_generator_alone() -> None:
    batch = pack(samples())
    before = torch.random.get_rng_state()
    first, again = (
        draw_flow_noise(batch.target_GPD, CONFIG.dit_config.cfm_config, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))


def test_half_precision_patches_keep_exact_probabilities() -> None:
    flow_noise = draw_flow_noise(torch.zeros(4000, *SHAPE).bfloat16(), CONFIG.dit_config.cfm_config)
    assert flow_noise.noise_GPD.dtype == flow_noise.first_time_G.dtype == torch.bfloat16
    assert len(flow_noise.keep_G.unique()) > 3900  # bf16 has 256 values in [0.5, 1)
    assert not (flow_noise.keep_G == 0).any()


@pytest.mark.parametrize("scheduler", ["log-norm", "uniform"])
def test_times_in_mean_mode(scheduler: str) -> None:
    flow = CONFIG.dit_config.cfm_config.model_copy(update={"t_scheduler": scheduler})
    flow_noise: FlowNoise = draw_flow_noise(
        torch.zeros(20_000, *SHAPE), flow, generator=torch.Generator().manual_seed(0)
    )
    plain_r, plain_t = times(flow_noise, flow, progress=0.5, mean_mode=False)
    assert torch.equal(plain_r, plain_t) and plain_t.min() > 0 and plain_t.max() < 1
    for progress, share in ((0.0, 0.25), (0.5, 0.5), (1.0, 0.75)):
        r_G, t_G = times(flow_noise, flow, progress=progress, mean_mode=True)
        differs_G = r_G != t_G
        assert (r_G <= t_G).all()
        assert abs(differs_G.float().mean().item() - share) < 0.02
        assert torch.equal(t_G[~differs_G], plain_t[~differs_G])


def test_batch_without_target_has_no_loss(model: VoxCPM2) -> None:
    """A packed row with no target patch gives zeros, not NaN."""
    batch = pack(samples()[:1])
    none = replace(
        batch,
        target_GPD=batch.target_GPD[:0],
        condition_GPD=batch.condition_GPD[:0],
        source_G=batch.source_G[:0],
        stop_G=batch.stop_G[:0],
    )
    diffusion, stop = model(none).mean()
    assert diffusion.item() == stop.item() == 0


def test_row_without_audio_input(model: VoxCPM2) -> None:
    """A target of one patch is no input: LocEnc gets nothing to read, and a gradient of zeros, not none."""
    torch.manual_seed(2)
    model.zero_grad()
    model(pack([sample(3, 0, 1)])).total().backward()
    gradients = [parameter.grad for parameter in model.feat_encoder.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
    embedding = model.base_lm.embed_tokens.weight.grad
    assert embedding is not None and embedding.any()
