"""The embedded pictures."""
