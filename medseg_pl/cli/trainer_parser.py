"""The parser of `fit`, `validate`, `test` and `predict`, without a run: for whoever asks what they take."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from medseg_pl.cli.lightning_cli import MedsegCLI
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule


def trainer_parser(**settings: Any) -> LightningArgumentParser:
    """The whole parser, whose subcommands have all of their options.

    Args:
        settings: What the parser of a subcommand is made with, by its name, such as `default_config_files`.
    """
    try:
        _ParserOnly(
            SegmentationModule,
            SegmentationDataModule,
            args=["fit"],
            trained=None,
            auto_configure_optimizers=False,
            parser_kwargs={"prog": "medseg", **settings},
        )
    except _Made as made:
        return made.parser
    raise AssertionError("LightningCLI parses its arguments before it does anything else")


class _Made(Exception):  # noqa: N818  no error
    """The parser is there, and nothing else is wanted."""

    def __init__(self, parser: LightningArgumentParser) -> None:
        super().__init__()
        self.parser = parser


class _ParserOnly(MedsegCLI):
    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        return LightningCLI.subcommands()

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        raise _Made(parser)
