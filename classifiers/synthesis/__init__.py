"""Synthesis: a language model writes new documents from a run's own, each traceable to the bytes it was made from."""
