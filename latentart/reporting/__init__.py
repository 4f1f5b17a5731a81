"""`latentart report`."""
