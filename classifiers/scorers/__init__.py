"""Scorers: text classifiers of any kind, read once a document, and what is told of their outputs."""
