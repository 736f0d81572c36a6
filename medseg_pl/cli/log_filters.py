"""What libraries say for their own sake, left out; warnings about the user's data and settings stay."""

from __future__ import annotations

import logging
import warnings

from medseg_pl.core.errors import make_printable

_NOISE = (
    "LightningCLI's args parameter is intended",
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*LeafSpec.*",
    ".*in eval mode at the start of training.*",
    ".*Trainer was configured.*logger=False",
    "Checkpoint directory .* exists and is not empty",  # a run that goes on
    ".*instantiate_classes.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*custom batch sampler.*",
    "The provided params to be frozen already exist",  # BackboneFinetuning leaves batch normalization trainable
    "Image size .* exceeds limit of .* pixels, could be decompression bomb",  # ours is larger, and is an error
    "The `srun` command is available on your system but is not used",  # not every run on a cluster's machine is a job
    ".*recommended to use `self.log.*sync_dist=True",  # scores are merged by case before they are logged
)


class PrintableFormatter(logging.Formatter):
    """Leaves out of a message what a terminal would obey: cases are named in it, and a stranger names files."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the message, line by line."""
        return "\n".join(make_printable(line) for line in super().format(record).split("\n"))


def quiet_libraries() -> None:
    """Have loggers and warnings of this process say only what the user can do something about."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # five retries, each told twice; we say it once
    told = logging.StreamHandler()
    told.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(handlers=[told])
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
