"""The command line: parses, calls a stage, and turns errors into messages."""

from pipelines.cli.app import app
from pipelines.cli.entry import main

__all__ = ["app", "main"]
