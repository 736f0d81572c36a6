"""Fitting of stored weights to a network: what is taken as it is, what is adapted, what stays fresh, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from medseg_pl.core.errors import count_noun
from medseg_pl.models.normalization import InputStatistics
from medseg_pl.models.weight_adaptation import (
    Classes,
    Input,
    adapt_channels,
    adapt_head,
    adapt_slices,
    list_shared,
)
from medseg_pl.models.weight_matching import (
    Match,
    Weights,
    differs_in_channels,
    drop_counters,
    find_misfit,
    get_layer,
    list_layers,
    match_names,
    match_order,
    simplify_name,
)

ENCODER = "encoder."
_HEAD = "segmentation_head."
_MIN_SHARE = 0.25
"""Share of the encoder's tensors below which a few equal names are taken for chance."""

_MAX_NAMES = 4


class MisfitError(ValueError):
    """Stored weights belong to another network.

    The message says by which layer.
    """


class TrainedModel(NamedTuple):
    """A checkpoint's description of the model that its weights are from.

    Attributes:
        classes: The classes of its head.
        input: Its input channels.
        encoder: The name of its encoder; empty where its network has none.
        statistics: Its input statistics, where it normalizes by mean and deviation.
    """

    classes: Classes
    input: Input
    encoder: str
    statistics: InputStatistics | None = None


class FittedWeights(NamedTuple):
    """Weights that fit a network, with notes for the user.

    Attributes:
        state: A part of the network's state dict.
        notes: Sentences on counts of layers, adapted ones and those that stay fresh.
        details: Sentences for whoever wrote the file.
    """

    state: dict[str, Tensor]
    notes: list[str]
    details: list[str]


def fit_weights(
    source: Weights, target: Weights, inputs: Input, classes: Classes, trained: TrainedModel | None = None
) -> FittedWeights:
    """Fit stored weights to a network.

    Args:
        source: A state dict, of the network, its encoder, or something around it.
        target: The network's own.
        inputs: The network's input channels.
        classes: The classes of its head.
        trained: The model that the weights are from, where it is known.

    Raises:
        MisfitError: The weights are not those of this network, nor of its encoder.
    """
    source, target = drop_counters(source), drop_counters(target)
    head = _list_head(target, len(classes.names) + classes.has_background)
    # Networks of one's own have no encoder; then any part may be what the file holds.
    has_encoder = any(name.startswith(ENCODER) for name in target)
    parts = [ENCODER] if has_encoder else sorted({f"{name.partition('.')[0]}." for name in target})
    main = [name for name in target if (name.startswith(ENCODER) if has_encoder else name not in head)]
    match = match_names(source, target, parts)
    if not has_encoder and match.target_prefix:
        main = [name for name in target if name.startswith(match.target_prefix)]
    reason = _find_fault(match, source, target, main, inputs)
    if reason is not None:
        # Names come first, since shapes alone cannot tell two layers of one size apart.
        ordered = match_order(source, target, ENCODER) if has_encoder else None
        if ordered is None or _find_wrong_shape(ordered.pairs, source, target, inputs):
            raise MisfitError(reason)
        match = ordered
    state = {name: source[match.pairs[name]] for name in main if name in match.pairs}
    notes: list[str] = []
    notes += _adapt_stem(state, target, inputs, trained and trained.input)
    # A head reads what the decoder makes, so it is of no use above a fresh one.
    fresh = _add_rest(state, match, source, target, [*main, *head])
    if not match.target_prefix and not fresh:
        notes += _add_head(state, match, source, {name: target[name] for name in head}, classes, trained)
    used = {match.pairs[name] for name in state}
    details = _describe_file([name for name in source if name not in used], match)
    return FittedWeights(state, [_count_layers(state, target), *notes], details)


def _list_head(target: Weights, rows: int) -> list[str]:
    """List the tensors of the segmentation head."""
    # Where none has its name, it is the last layer with a row for each class.
    if named := [name for name in target if name.startswith(_HEAD)]:
        return named
    layers = [get_layer(name) for name, value in target.items() if value.ndim > 1 and len(value) == rows]
    return [name for name in target if layers and get_layer(name) == layers[-1]]


def _find_fault(match: Match, source: Weights, target: Weights, main: Sequence[str], inputs: Input) -> str | None:
    """Explain why a match by name is wrong, if it is."""
    matched = [name for name in main if name in match.pairs]
    if not matched:
        return "no layer of the file has a name and shape of the network"
    if (wrong := _find_wrong_shape({name: match.pairs[name] for name in matched}, source, target, inputs)) is not None:
        stored = match.pairs[wrong]
        return f"{wrong} is {list(target[wrong].shape)}, and {stored} in the file {list(source[stored].shape)}"
    # Without the stem all later layers would see other features than they were trained on.
    if matched[0] != main[0] or len(matched) < _MIN_SHARE * len(main):
        return f"the file has {len(matched)} of the network's {count_noun(len(main), 'tensor')}, which is too few"
    part = ENCODER if not match.target_prefix and main[0].startswith(ENCODER) else ""
    start = match.source_prefix + part
    theirs = {simplify_name(name): name for name in source}
    below = [form for form in theirs if form.startswith(start)]
    used = {simplify_name(match.pairs[name]) for name in matched}
    ours = find_misfit(
        [simplify_name(name) for name in matched], [simplify_name(n) for n in main if n not in match.pairs]
    )
    if ours is not None:
        return f"{ours} is not in the file"
    surplus = find_misfit(
        [form.removeprefix(start) for form in used], [form.removeprefix(start) for form in below if form not in used]
    )
    return None if surplus is None else f"the file has the layer {surplus}, which the network lacks"


def _find_wrong_shape(pairs: dict[str, str], source: Weights, target: Weights, inputs: Input) -> str | None:
    """Find the first tensor of another shape.

    A stem's input channels may differ.
    """
    seen = inputs.channels * inputs.slices
    for name, stored in pairs.items():
        ours, theirs = target[name].shape, source[stored].shape
        is_stem = differs_in_channels(ours, theirs) and ours[1] == seen
        if ours != theirs and not is_stem:
            return name
    return None


def _adapt_stem(state: dict[str, Tensor], target: Weights, after: Input, before: Input | None) -> list[str]:
    """Adapt the first convolutions to the input channels, with notes."""
    seen = after.channels * after.slices
    stems = [name for name, value in state.items() if value.shape != target[name].shape]
    if before is not None and before != after and not stems:
        stems = [name for name in state if state[name].ndim >= 3][:1]  # 3 colors or 3 slices: the shapes are equal
    notes = []
    for name in stems:
        channels = state[name].shape[1]
        if before is not None and before.channels * before.slices == channels:
            state[name] = adapt_slices(state[name], before, after)
            notes.append(
                f"Filters for {count_noun(before.slices, 'slice')} of {count_noun(before.channels, 'channel')} are "
                f"adapted to {after.slices} of {after.channels}."
            )
        else:
            state[name] = adapt_channels(state[name], seen)
            how = "are summed" if seen == 1 else "are repeated and rescaled"
            notes.append(f"Filters for {count_noun(channels, 'input channel')} {how} for {seen}.")
    return notes


def _add_rest(
    state: dict[str, Tensor], match: Match, source: Weights, target: Weights, others: Sequence[str]
) -> list[str]:
    """Add other parts that the file holds whole; return fresh ones' names."""
    fresh = []
    rest = [name for name in target if name not in set(others)]
    for part in dict.fromkeys(name.partition(".")[0] for name in rest):
        names = [name for name in rest if name.partition(".")[0] == part]
        stored = {name: source[match.pairs[name]] for name in names if name in match.pairs}
        # Half a decoder is worse than none: its trained half expects what the other half would have given.
        if len(stored) == len(names) and all(stored[name].shape == target[name].shape for name in names):
            state.update(stored)
        else:
            fresh.append(part)
    return fresh


def _add_head(
    state: dict[str, Tensor],
    match: Match,
    source: Weights,
    head: Weights,
    classes: Classes,
    trained: TrainedModel | None,
) -> list[str]:
    """Add the segmentation head by label names, else as a whole."""
    stored = {name: source[match.pairs[name]] for name in head if name in match.pairs}
    if len(stored) < len(head) or any(stored[name].shape[1:] != value.shape[1:] for name, value in head.items()):
        return []
    if trained is not None:
        if shared := list_shared(trained.classes, classes):
            state.update({name: adapt_head(stored[name], trained.classes, head[name], classes) for name in head})
        new = [name for name in classes.names if name not in shared]
        return [f"The head keeps the filters of {', '.join(shared) or 'no label'}; {', '.join(new) or 'none'} is new."]
    if any(stored[name].shape != value.shape for name, value in head.items()):
        return []
    state.update(stored)
    return ["The file does not name its labels; the head is taken as it is."]


def _count_layers(state: Weights, target: Weights) -> str:
    """Count the layers of each part that were loaded, and name the parts that stay fresh."""
    counts, fresh = [], []
    for part in dict.fromkeys(name.partition(".")[0] for name in target):
        layers = list_layers(name for name in target if name.partition(".")[0] == part)
        loaded = list_layers(name for name in state if name.partition(".")[0] == part)
        # A part that is fresh as a whole is named once, and not layer by layer.
        fresh += [layer for layer in layers if layer not in loaded] if loaded else [part]
        counts += [f"{len(loaded)} of {count_noun(len(layers), 'layer')} of {part}"] if loaded else []
    return f"Loaded: {', '.join(counts)}." + (f" Random at first: {_list_some(fresh)}." if fresh else "")


def _describe_file(superfluous: Sequence[str], match: Match) -> list[str]:
    """Describe how layers were found in the file, and which it has besides."""
    details = ["Layers were matched by the order of their shapes."] if match.by_order else []
    if match.source_prefix:
        details.append(f"Names in the file begin with {match.source_prefix}")
    if superfluous:
        layers = list_layers(superfluous)
        details.append(f"Not used of the file: {count_noun(len(layers), 'layer')}, {_list_some(layers)}.")
    return details


def _list_some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMES]) + (", …" if len(names) > _MAX_NAMES else "")
