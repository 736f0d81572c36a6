"""The blocks of a README that a run fills."""

from __future__ import annotations

from pathlib import Path

from medseg_pl.core.errors import MissingDataError, SettingError
from medseg_pl.io.atomic_files import whole_file
from medseg_pl.reporting import Run
from medseg_pl.reporting.markdown import write_blocks
from medseg_pl.reporting.readme_markers import fill_markers, find_missing_markers


def fill_readme(path: Path, run: Run) -> tuple[bool, list[str]]:
    """Write what the run says between the marks of a README, and nothing elsewhere.

    Returns:
        Whether the file changed, and the blocks that it has no marks for.

    Raises:
        MissingDataError: There is no such file.
        SettingError: It is no UTF-8, or its marks are missing or damaged.
    """
    if not path.is_file():
        raise MissingDataError(f"There is no {path}. Name a README with marks, such as that of medseg new.")
    try:
        before = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is not in UTF-8: {error}. Save it as UTF-8.") from None
    said = write_blocks(run)
    after = fill_markers(before, said, str(path))
    if after != before:
        place = path.resolve()  # a link stays a link
        with whole_file(place, replace=True) as temporary:
            temporary.write_bytes(after.encode())
            temporary.chmod(place.stat().st_mode)
    return after != before, find_missing_markers(before, said)
