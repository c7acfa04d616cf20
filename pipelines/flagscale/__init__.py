"""FlagScale's experiments: its two YAML files read, its Megatron's words made from them, and ours beside them."""
