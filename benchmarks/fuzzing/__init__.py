"""Mutated files of every format, and what the readers make of them."""
