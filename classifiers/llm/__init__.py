"""A language model: what it is asked, how its answer is held to a form, and the two ways to reach one."""
