"""``python -m pipelines`` is ``csip``."""

from pipelines.cli import main

main()
