"""`latentart export`: what a model is when it leaves."""
