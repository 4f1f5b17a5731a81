"""Archives among the raw files, read in place: nothing is unpacked to disk, and no name in one is a path."""
