"""`studio`: one page on which a person draws, watches a training and looks through the pictures."""
