"""What maintainers alone run: the environment, the weights of the demo."""
