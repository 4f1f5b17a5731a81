"""From a raw folder to a clean data set."""
