"""`latentart bench`."""
