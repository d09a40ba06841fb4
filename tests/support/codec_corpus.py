"""Settings of the codec trainer's short test run."""

SETTINGS = [
    "model.audio_vae={encoder_dim: 2, encoder_rates: [2, 5, 8, 8], latent_dim: 4, decoder_dim: 64, "
    "decoder_rates: [8, 6, 5, 2, 2, 2]}",
    "data.seconds=0.16",
    "data.held_out=[d.wav]",
    "loss.num_mels=[10, 40]",
    "loss.mel_windows=[256, 1024]",
    "discriminator={periods: [3], period_channels: 2, windows: [256], bands: [0.2], spectrum_channels: 2, start: 1}",
    "rows=4",
    "precision=fp32",
    "run={steps: 4, log_every: 1, validate_every: 4, validate_crops: 2, listen: 1, save_every: 2, device: cpu, "
    "tracking_uri: none}",
]
"""Overrides that make a run of four steps on `samples.fabricate.make_folder`'s corpus take a moment."""
