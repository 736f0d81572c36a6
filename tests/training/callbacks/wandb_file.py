"""Reads what W&B wrote: the records of a run file, in the framing of LevelDB's log."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

_BLOCK = 32768
_FILE_HEADER, _CHUNK_HEADER = 7, 7
_WHOLE, _LAST = 1, 4


def records(path: Path) -> list[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, pending, found = path.read_bytes(), _FILE_HEADER, b"", []
    while at + _CHUNK_HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _CHUNK_HEADER:  # too short for another chunk
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + _CHUNK_HEADER])
        pending += data[at + _CHUNK_HEADER : at + _CHUNK_HEADER + size]
        at += _CHUNK_HEADER + size
        if kind in (_WHOLE, _LAST):
            found.append(Record.FromString(pending))
            pending = b""
    return found


def history(path: Path) -> dict[str, list[Any]]:
    """The values that were logged, by metric; of a nested one by its path with dots."""
    values: dict[str, list[Any]] = {}
    for record in records(path):
        for item in record.history.item:
            name = ".".join(item.nested_key) or item.key
            values.setdefault(name, []).append(json.loads(item.value_json))
    return values


def config(path: Path) -> dict[str, Any]:
    return {
        item.key: json.loads(item.value_json)
        for record in records(path)
        for item in [*record.config.update, *record.run.config.update]
    }


def summary(path: Path) -> dict[str, Any]:
    return {
        item.key or ".".join(item.nested_key): json.loads(item.value_json)
        for record in records(path)
        for item in [*record.summary.update, *record.run.summary.update]
    }


def run_ids(path: Path) -> set[str]:
    return {record.run.run_id for record in records(path) if record.WhichOneof("record_type") == "run"}
