"""The errors a user can cause, each one a sentence that ends with the remedy."""

from __future__ import annotations


class MedsegError(Exception):
    """Something outside medseg is wrong: the data, a file, or a setting.

    The message says what was expected, what came instead, in which case and file, and what to do now. The
    command line prints it as one paragraph and exits with `exit_code`.
    """

    exit_code = 1


class SettingError(MedsegError):
    """A setting cannot work, whatever the data: wrong use of the command."""

    exit_code = 2


class DivergedError(MedsegError):
    """The network's numbers are no longer finite: the run cannot give a model."""

    REMEDY = "Lower model.optimizer's lr, set trainer.gradient_clip_val, or check the data with medseg check."


class OutOfMemoryError(MedsegError):
    """The settings ask for more memory than there is."""


class TooShortError(MedsegError):
    """A training is to end before the state that it goes on from."""


class WorkerDiedError(MedsegError):
    """A process that the run depends on has died."""


class LoggerError(MedsegError):
    """A logger's server cannot be reached, or does not let us in."""


class DataError(MedsegError):
    """The data cannot be used as it is."""


class MissingDataError(DataError):
    """A folder, a file or one half of an image-mask pair is not there."""


class UnreadableFileError(DataError):
    """A file is there but cannot be decoded, or is larger than the reader allows."""


class MaskValueError(DataError):
    """A mask holds a value that no label claims."""


class LabelOverlapError(MaskValueError):
    """A voxel carries several labels that exclude each other."""


class GeometryError(DataError):
    """An image and its mask, or the channels of an image, do not share one grid."""


class ExportError(MedsegError):
    """A model cannot be exported, or does not compute the same afterwards."""


class UnwritableFileError(MedsegError):
    """A file cannot be written where it belongs: the disk is full, read-only or broken."""


class FolderLockedError(MedsegError):
    """Another process works in a folder that is for one at a time."""


class PreemptedError(MedsegError):
    """The training was asked to stop, and has kept its state: it is to go on, not to be looked into."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later


class InterruptedRunError(MedsegError):
    """Somebody has stopped the training, and it has kept its state.

    Args:
        message: What is said.
        exit_code: 128 and the number of the signal, as a shell has it: 130 for Ctrl-C.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OutputExistsError(MedsegError):
    """Writing would replace something that is already there."""
