"""Scores of reconstructions and samples."""
