"""The command line: parses, calls a stage, and says what a user can mend."""

from pipelines.cli.commands import app, main

__all__ = ["app", "main"]
