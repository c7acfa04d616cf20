"""Annotation: a language model rates documents by a rubric, and its ratings become labels for the quality head."""
