"""Pictures in and out: decoding, grids, movies, figures."""
