"""From shards to batches: the mixture folder, Megatron's indices, the tokens of any step."""
