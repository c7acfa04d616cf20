"""What a model is: one file a kind, each with its shape, its forward pass and its first weights."""
