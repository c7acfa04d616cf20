"""A trained model that answers: text generation."""
