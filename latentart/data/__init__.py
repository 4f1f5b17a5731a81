"""Pictures in: decode, clean, index, data sets, latent cache, loading and synthetic art."""
