"""Checkpoints on disk: written whole or not at all, found again, opened as models."""
