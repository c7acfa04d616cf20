"""How commands are typed: arguments, options and their help; `pipelines.commands` does the work."""
