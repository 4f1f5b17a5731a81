"""latentart: your own folder of pictures into your own class-conditional latent diffusion model."""

__version__ = "0.1.0"
