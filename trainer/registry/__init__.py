"""The registry: which checkpoints there are, what each was trained on, and from which others it came."""
