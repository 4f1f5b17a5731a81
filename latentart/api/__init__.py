"""The interface for scripts and notebooks; its names are asked for from ``latentart`` itself."""
