"""Training: randomness, optimisers, checkpoints, logs, the loop and the two steps."""
