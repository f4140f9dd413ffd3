"""What a trained model is asked: log p(x) and how far to trust it, posterior draws, and whether it still learns."""
