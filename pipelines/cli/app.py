"""The program `csip`: its commands in panels, its version, and shell completion."""

import inspect
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipelines.cli import data, evaluate, labels, maintain, skeletons, train, videos
from pipelines.cli import inspect as inspection
from pipelines.cli.options import DATA, VIDEOS


class Program(TyperGroup):
    """The commands with their overview."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from pipelines.cli.help import print_overview

        print_overview(ctx, inspect.cleandoc(self.help or ""), self.commands)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a file that ends too early is a fault with a traceback, where Click would say "Aborted"."""
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise RuntimeError(f"input ended too early: {error}") from error


app = typer.Typer(cls=Program, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
# Stages import torch and MMPose, which takes seconds: each command does so when it runs, and --help stays quick.
app.add_typer(data.app)
app.add_typer(skeletons.app, name="skeletons", rich_help_panel=DATA)
app.add_typer(videos.app)
app.add_typer(labels.app, name="labels", rich_help_panel=VIDEOS)
for panel in (train, evaluate, inspection, maintain):
    app.add_typer(panel.app)


def _show_version(asked: bool) -> None:
    if asked:
        from csip.version import describe_version

        print(f"csip {describe_version()}")
        raise typer.Exit


@app.callback()
def csip(
    version: Annotated[
        bool, typer.Option("--version", help="Version and git revision.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Video person re-identification pretrained on 3D skeletons.

    Example:
      csip synth --out data/rendered
      csip skeletons --dataset rendered
      csip train-stage1 --dataset rendered

    `csip COMMAND --help` explains a command, `csip settings` lists the settings of a run.
    """
