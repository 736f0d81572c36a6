"""What holds for settings of any part."""

from __future__ import annotations

from medseg_pl.core.errors import SettingError


def require_at_least(part: str, **settings: tuple[int, int]) -> None:
    """Raise `SettingError` where one of the settings of a part is lower than its least.

    >>> require_at_least("data", batch_size=(0, 1))
    Traceback (most recent call last):
    medseg_pl.core.errors.SettingError: data.batch_size must be at least 1; got 0.
    """
    for name, (value, least) in settings.items():
        if value < least:
            raise SettingError(f"{part}.{name} must be at least {least}; got {value}.")
