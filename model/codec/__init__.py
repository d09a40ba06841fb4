"""AudioVAE and what is measured on it."""
