"""The machine and the other processes: devices, ranks, signals, memory, limits, progress."""
