"""What the project's maintenance needs: the environment, the wheel."""
