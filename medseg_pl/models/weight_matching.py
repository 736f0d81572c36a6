"""Matching of stored weights with a network's: by name below any prefix, by order, and what does not belong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

Weights = Mapping[str, Tensor]

_COUNTERS = ("num_batches_tracked", "relative_position_index", "attn_mask", "total_ops", "total_params")
"""Ends of names that hold no weights; libraries and their versions differ in storing them."""

_MAX_PREFIX = 5
_MIN_ORDERED = 20
_PREFERRED = ("ema", "teacher")
"""Parts of a file that are better than their siblings: averages over training."""


class Match(NamedTuple):
    """Pairs of a stored tensor and a network's.

    Attributes:
        pairs: Stored name of each matched tensor, by its name in the network.
        source_prefix: In front of the stored names.
        target_prefix: The part of the network that the file holds; empty for the whole network.
        by_order: Whether shapes in order matched, and not names.
    """

    pairs: dict[str, str]
    source_prefix: str
    target_prefix: str
    by_order: bool = False


def iterate_state_dicts(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Iterate over the state dicts of a file, averages first.

    Args:
        content: The file's content: a state dict, or a dictionary of state dicts and other values.
        name: Its name in the file.
        depth: How many dictionaries are around it.

    >>> import torch
    >>> [name for name, _ in iterate_state_dicts({"epoch": 3, "model": {"a": torch.ones(1)}})]
    ['model']
    """
    # A stranger's file may nest without end; training loops keep their weights two dictionaries deep at most.
    if not isinstance(content, Mapping) or depth > 2:
        return
    # A few libraries number their tensors; names are compared as text.
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield name, tensors
    inner = [(str(key), value) for key, value in content.items() if isinstance(value, Mapping)]
    for key, value in sorted(inner, key=lambda item: not any(word in item[0] for word in _PREFERRED)):
        yield from iterate_state_dicts(value, key, depth + 1)


def drop_counters(weights: Weights) -> dict[str, Tensor]:
    """Leave out what holds no weights, such as counts of batches."""
    return {name: value for name, value in weights.items() if not name.endswith(_COUNTERS)}


def simplify_name(name: str) -> str:
    """Bring a tensor's name to the form in which libraries agree.

    timm writes `stages_0` in place of `stages.0` for encoders, and smp puts timm's encoders into `encoder.model`.

    >>> simplify_name("encoder.model.stages_0.bn1.running_mean")
    'encoder.stages.0.bn1.running.mean'
    """
    return re.sub(r"^((?:.*\.)?encoder\.)(?:model\.)+", r"\1", name.replace("_", "."))


def match_names(source: Weights, target: Weights, parts: Iterable[str]) -> Match:
    """Match a file to a network by the prefixes of its names.

    Args:
        source: The file's weights.
        target: The network's.
        parts: Prefixes of the network's parts that a file may hold alone, such as `encoder.`.

    Returns:
        The match of the most tensors; of equal ones that of averaged weights, then of the whole network.
    """
    named = {part: _index_part(target, part) for part in dict.fromkeys(["", *parts])}
    simple = {name: simplify_name(name) for name in source}
    counts: Counter[tuple[str, str]] = Counter()
    for name, form in simple.items():
        for prefix in _list_prefixes(form):
            counts.update(
                (prefix, part)
                for part, names in named.items()
                if (own := names.get(form.removeprefix(prefix))) is not None and source[name].ndim == target[own].ndim
            )
    if not counts:
        return Match({}, "", "")
    # Shorter prefixes win ties: a file of the whole network is then not taken for one of its encoder.
    prefix, part = max(counts, key=lambda key: (counts[key], _is_preferred(key[0]), -len(key[1]), -len(key[0])))
    pairs = {
        named[part][form.removeprefix(prefix)]: name
        for name, form in simple.items()
        if form.startswith(prefix) and form.removeprefix(prefix) in named[part]
    }
    return Match(pairs, prefix, part)


def match_order(source: Weights, target: Weights, part: str) -> Match | None:
    """Match a file of other names by its shapes in order.

    Args:
        source: The file's weights, in its order.
        target: The network's.
        part: The prefix of the network's part that the file may hold.

    Returns:
        `None` unless the part's shapes, but for the input channels of the first, are where the file begins.
    """
    own = [name for name in target if name.startswith(part)]
    # The shapes of a few layers agree by chance; those of twenty in a row do not.
    if len(own) < _MIN_ORDERED or len(own) > len(source):
        return None
    pairs = dict(zip(own, source, strict=False))
    for index, (name, stored) in enumerate(pairs.items()):
        ours, theirs = target[name].shape, source[stored].shape
        same = ours == theirs or (index == 0 and differs_in_channels(ours, theirs))
        # Weight and bias of a normalization have one shape, so the last part of the name must agree, too.
        if not same or name.rpartition(".")[2] != stored.rpartition(".")[2]:
            return None
    return Match(pairs, "", part, by_order=True)


def differs_in_channels(ours: Iterable[int], theirs: Iterable[int]) -> bool:
    """Tell whether two convolutions' shapes differ in input channels alone.

    >>> differs_in_channels((64, 1, 7, 7), (64, 3, 7, 7)), differs_in_channels((64, 1, 7, 7), (32, 3, 7, 7))
    (True, False)
    """
    a, b = tuple(ours), tuple(theirs)
    # The first axis of a kernel counts outputs, the second inputs; linear layers have no kernel and never differ.
    return len(a) == len(b) >= 3 and a[1] != b[1] and (a[0], *a[2:]) == (b[0], *b[2:])


def find_misfit(matched: Iterable[str], others: Iterable[str]) -> str | None:
    """Find a layer that only one of two architectures has.

    Networks of one architecture that differ in depth share whole stages from the first on; a file of another has
    surplus layers within a stage, or a stage too many between two others.

    Args:
        matched: Names of matched tensors.
        others: Names of the other tensors on the same side.

    Returns:
        The first such layer; `None` where the others are deeper stages and heads alone.

    >>> find_misfit(["layer1.0.w", "layer2.0.w"], ["layer1.1.w"]), find_misfit(["layer1.0.w"], ["layer2.0.w", "fc.w"])
    ('layer1.1', None)
    """
    units = {get_stage(name) for name in matched}
    last: dict[str, int] = {}
    for unit in units:
        kind, number = _split_number(unit)
        last[kind] = max(number, last.get(kind, -1))
    for name in others:
        unit = get_stage(name)
        kind, number = _split_number(unit)
        # A surplus layer inside a stage that matched, or a stage below the deepest that matched.
        if unit in units or -1 < number < last.get(kind, -1):
            return get_layer(name)
    return None


def get_stage(name: str) -> str:
    """Return the outermost numbered part of a name.

    Where no part is numbered, it is the layer.

    >>> get_stage("layer1.0.conv2.weight"), get_stage("stages_2.blocks.0.norm.bias"), get_stage("fc.weight")
    ('layer1', 'stages_2', 'fc')
    """
    # Not greedy: the outermost number is the stage, those behind it are blocks and layers.
    found = re.match(r".*?\d+(?=[._])", name)
    return found[0] if found else get_layer(name)


def get_layer(name: str) -> str:
    """Return the name of the layer that a tensor belongs to."""
    return name.rpartition(".")[0]


def list_layers(names: Iterable[str]) -> list[str]:
    """List the layers of tensors, in their order.

    >>> list_layers(["fc.weight", "fc.bias", "head.weight"])
    ['fc', 'head']
    """
    return list(dict.fromkeys(get_layer(name) for name in names))


def _index_part(target: Weights, part: str) -> dict[str, str]:
    """Map simple names below a prefix to the network's names."""
    forms, start = {simplify_name(name): name for name in target}, simplify_name(part)
    return {form.removeprefix(start): name for form, name in forms.items() if form.startswith(start)}


def _list_prefixes(form: str) -> list[str]:
    parts = form.split(".")
    return [".".join([*parts[:count], ""]) if count else "" for count in range(min(_MAX_PREFIX, len(parts)))]


def _is_preferred(prefix: str) -> bool:
    return any(part in _PREFERRED for part in prefix.split("."))


def _split_number(unit: str) -> tuple[str, int]:
    kind = unit.rstrip("0123456789")
    return kind, int(unit[len(kind) :] or -1)
