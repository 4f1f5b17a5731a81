"""One update of each network, what it moves, and what builds it."""
