"""What is whole on a disk or not there: files, folders, JSON, tensors, checkpoints, locks, downloads."""
