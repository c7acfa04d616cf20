"""Encoders and text classifiers by folder or hub name: opened safely, run on a GPU or a CPU with the same code."""
