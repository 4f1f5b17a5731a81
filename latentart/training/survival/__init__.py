"""What lets a run be stopped, killed and typed again."""
