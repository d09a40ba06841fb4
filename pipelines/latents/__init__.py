"""Latents of clips by AudioVAE."""
