"""`latentart sample` and `latentart reconstruct`."""
