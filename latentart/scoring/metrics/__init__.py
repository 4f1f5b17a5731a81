"""Numbers for sets of pictures, one module a number."""
