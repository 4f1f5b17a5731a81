"""`latentart plan` and `latentart schedule`: before a training."""
