"""`latentart demo`, `init`, `info`, `doctor`, `clean-data`, `weights` and `ema`."""
