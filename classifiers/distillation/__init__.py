"""Distilled classifiers: small models that learn to say what a language model, a person or a rule said of a sample."""
