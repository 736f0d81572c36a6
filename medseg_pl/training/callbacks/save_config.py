"""The configuration of a run, as a file in its folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

log = logging.getLogger(__name__)


class ConfigWriter(SaveConfigCallback):
    """Writes `config.yaml` when a run starts.

    Where the run was started before, that file stays. Settings that are others now are written as
    `config_resumed_<n>.yaml` beside it, and named on the terminal.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Once, on rank zero, into the run folder."""
        directory = trainer.log_dir  # a broadcast: every rank takes part
        if self.already_saved or directory is None:
            return
        written = _written(Path(directory)) if trainer.is_global_zero else []
        now = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        before = _settings(written[-1]) if written else {}
        changed = _changes(before, now) if written else []
        if trainer.is_global_zero and changed:
            log.warning("Settings differ from those that this run had before: %s.", ", ".join(changed))
        if written and not changed:
            self.already_saved = True
        elif written:
            self.config_filename = f"config_resumed_{len(written)}.yaml"
        # Whether and under which name is rank zero's to say: the others may not see its files yet.
        self.already_saved = trainer.strategy.broadcast(self.already_saved)
        self.config_filename = trainer.strategy.broadcast(self.config_filename)
        super().setup(trainer, pl_module, stage)


def _written(folder: Path) -> list[Path]:
    """The configurations in a run folder, oldest first."""
    first, later = folder / "config.yaml", list(folder.glob("config_resumed_*.yaml"))
    return [first, *sorted(later, key=lambda path: (len(path.name), path.name))] if first.is_file() else []


def _settings(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _changes(before: Any, now: Any, name: str = "") -> list[str]:
    """The settings that differ, with where training goes on from left out.

    >>> _changes({"trainer": {"max_epochs": 2}, "ckpt_path": None}, {"trainer": {"max_epochs": 3}, "ckpt_path": "a"})
    ['trainer.max_epochs']
    """
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [name]
    keys = [key for key in {**before, **now} if (name, key) != ("", "ckpt_path")]
    return [
        change
        for key in keys
        for change in _changes(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    ]
