"""What a trained model is asked: log p(x) and how far to trust it, draws of x and of z given x, how it still learns."""
