"""The chain from frames to ranks: one module a stage, and the command line that runs them."""
