"""Pure mathematics: torch, einops and math only; no files, no logging, no config, no global state."""
