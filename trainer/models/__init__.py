"""What a model is: one file a kind, the layers they share, and one contract for all of them."""
