"""One readable story per command."""
