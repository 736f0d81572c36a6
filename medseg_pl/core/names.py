"""Names that become files and folders: of labels, cases and experiments."""

from __future__ import annotations

import re

from medseg_pl.core.text import replace_controls

MAX_LENGTH = 120
"""Characters of a name: with a suffix it fits every file system."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_OWN_FOLDER = ".medseg"
_FOLDERS_OF_OUTPUTS = ("cases", "overlays", "probabilities", "review")
"""What a prediction writes beside the folders of labels."""


def name_fault(name: str) -> str | None:
    """Say why a name is no part of a path on every system; `None` where it is one.

    >>> name_fault("left kidney"), name_fault("../x"), name_fault("a:b")
    (None, "holds '/'", "holds ':'")
    """
    if (found := re.search(r'[/\\:*?"<>|]', name)) is not None:
        return f"holds {found.group()!r}"
    if _RESERVED.fullmatch(name):
        return "is the name of a device on Windows"
    if name.lower() in _FOLDERS_OF_OUTPUTS:
        return "is a folder that predictions write other files to"
    if name.startswith((".", " ")) or name.endswith((".", " ")):
        return "begins or ends with a dot or a space"
    return _part_fault(name)


def path_fault(name: str) -> str | None:
    """Say why a name such as `patient3/ct` leads out of the folder that it is written to, or cannot be printed.

    >>> path_fault("patient3/ct"), path_fault("a/../../b"), path_fault("/etc")
    (None, "holds '..'", "holds an empty part beside '/'")
    """
    for part in name.split("/"):
        if part in ("", ".", "..", _OWN_FOLDER):
            return f"holds {part!r}" if part else "holds an empty part beside '/'"
        if "\\" in part:
            return "holds a backslash"
        if (fault := _part_fault(part, most=240)) is not None:
            return fault
    return None


def _part_fault(name: str, most: int = MAX_LENGTH) -> str | None:
    if not name:
        return "is empty"
    if replace_controls(name) != name:
        return "holds a character that cannot be printed"
    return f"has more than {most} characters" if len(name) > most else None
