"""Networks: blocks, attention, autoencoder, discriminator, perceptual, unet, dit."""
