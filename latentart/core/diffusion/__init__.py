"""Diffusion: schedules, process, samplers and guidance."""
