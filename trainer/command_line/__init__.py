"""How the trainer's commands are typed: one module a group of commands, each with one `add_…` a command."""
