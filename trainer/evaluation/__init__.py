"""What a checkpoint is worth: held-out text, tasks, generated samples."""
