"""A trained model: its folder, what it draws, its averages and its labels."""
