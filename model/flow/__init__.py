"""Flow matching: noise, sampler, losses."""
