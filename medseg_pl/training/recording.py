"""Recording constructor arguments as plain settings, so that a script's checkpoint can be loaded anywhere."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.core.mixins.hparams_mixin import HyperparametersMixin, _given_hyperparameters
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.validation import Recorded

INSTANTIATOR = {"_instantiator": "lightning.pytorch.cli.instantiate_module"}
"""Tells Lightning's `load_from_checkpoint` that settings are plain and name classes by their path."""


def keep_settings(
    module: HyperparametersMixin, arguments: Mapping[str, Any], part: str, network: tuple[int, int] | None = None
) -> str:
    """Keep constructor arguments as hyperparameters.

    LightningCLI gives its own; the objects of a script are described.

    Args:
        module: A module or data module, within its constructor.
        arguments: Arguments of its constructor.
        part: `model` or `data`, for an error.
        network: `in_channels` and `classes`, where one of the arguments is a `network`.

    Returns:
        Why a checkpoint could not be loaded; empty where it can.
    """
    # Not for loggers: the run folder has the whole configuration, and a hosted logger need not have the paths.
    if _given_hyperparameters.get() is not None:
        module.save_hyperparameters(logger=False)
        return ""
    try:
        described = describe_arguments({name: each for name, each in arguments.items() if name != "network"}, part)
        if network is not None:
            described["network"] = describe_network(arguments["network"], *network)
    except SettingError as error:
        return str(error)
    module.save_hyperparameters({**described, **INSTANTIATOR}, logger=False)
    return ""


def describe_arguments(arguments: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Describe constructor arguments as LightningCLI does.

    Args:
        arguments: Arguments of a constructor.
        part: `model` or `data`, for an error.

    Returns:
        Plain values, and classes with their `init_args`.

    Raises:
        SettingError: It cannot be told how an argument was made.
    """
    return {name: _describe(value, f"{part}.{name}") for name, value in arguments.items()}


def describe_network(network: Any, in_channels: int, classes: int) -> Any:
    """Describe a network or its factory.

    `in_channels` and `classes` are left out, since they follow from other settings.

    Args:
        network: The network, or what makes it.
        in_channels: Channels of its images.
        classes: Channels of its logits.

    Raises:
        SettingError: A ready network was made with arguments that cannot be read from it.
    """
    derived = {"in_channels": in_channels, "classes": classes}
    if isinstance(network, nn.Module):
        described = _describe_object(network, "model.network", derived)
    else:
        described = _describe(network, "model.network")
    if isinstance(described, dict):
        # Weights come from the checkpoint: whoever loads it downloads nothing.
        made_with = {name: value for name, value in described["init_args"].items() if name not in derived}
        no_weights = {"encoder_weights": None} if "encoder_weights" in _get_parameters(_get_factory(network)) else {}
        described["init_args"] = made_with | no_weights
    return described


def _describe(value: Any, name: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _describe(each, f"{name}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_describe(each, name) for each in value]
    if isinstance(value, functools.partial):
        given = inspect.signature(value.func).bind_partial(*value.args, **value.keywords).arguments
        return {"class_path": _get_import_path(value.func, name), "init_args": describe_arguments(given, name)}
    if isinstance(value, type):
        return {"class_path": _get_import_path(value, name), "init_args": {}}
    if inspect.isroutine(value):
        return _get_import_path(value, name)
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return describe_arguments(fields, name)
    return _describe_object(value, name, {})


def _describe_object(value: Any, name: str, derived: Mapping[str, Any]) -> dict[str, Any]:
    """Describe an object by its arguments, which must make it again."""
    if isinstance(value, Recorded):
        described = describe_arguments(value.made_with, name)
        return {"class_path": _get_import_path(type(value), name), "init_args": described}
    arguments = {**_get_arguments(value, name, derived), **derived}
    try:
        with torch.random.fork_rng(devices=[]):
            again = type(value)(**arguments)
    except Exception as error:  # The constructor is anyone's.
        raise _make_unknown_error(value, name) from error
    if not _is_same(value, again):
        raise _make_unknown_error(value, name)
    return {"class_path": _get_import_path(type(value), name), "init_args": describe_arguments(arguments, name)}


def _get_arguments(value: Any, name: str, derived: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(config := getattr(value, "_hub_mixin_config", None), dict):  # networks of segmentation-models-pytorch
        # No weights are needed to compare architectures.
        return {**config, **({"encoder_weights": None} if "encoder_weights" in config else {})}
    arguments = {}
    for parameter in _get_parameters(type(value)).values():
        missing = parameter.name not in derived and not hasattr(value, parameter.name)
        if missing and parameter.default is inspect.Parameter.empty:
            raise _make_unknown_error(value, name)
        if hasattr(value, parameter.name):
            argument = getattr(value, parameter.name)
            arguments[parameter.name] = argument.tolist() if isinstance(argument, Tensor) else argument
    return arguments


def _get_parameters(function: Any) -> dict[str, inspect.Parameter]:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.items()
    return {name: each for name, each in parameters if each.kind not in variable}


def _get_factory(factory: Any) -> Any:
    """Return the class or function that makes a network."""
    if isinstance(factory, functools.partial):
        return factory.func
    return type(factory) if isinstance(factory, nn.Module) else factory


def _get_import_path(function: Callable[..., Any], name: str) -> str:
    """Return the shortest import path of a class or function."""
    parts = str(function.__module__).split(".")
    if "." not in function.__qualname__:
        for count in range(1, len(parts) + 1):
            module = ".".join(parts[:count])
            if getattr(sys.modules.get(module), function.__qualname__, None) is function:
                return f"{module}.{function.__qualname__}"
    raise SettingError(
        f"{name} is {function.__qualname__}, which a checkpoint cannot name. Pass a class or functools.partial of one, "
        "defined at the top of a module."
    )


def _is_same(one: Any, other: Any) -> bool:
    """Tell whether constructors left two objects alike, apart from weights."""
    if type(one) is not type(other):
        return False
    if isinstance(one, nn.Module):
        pairs = list(zip(one.modules(), other.modules(), strict=False))
        shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (one, other)]
        return shapes[0] == shapes[1] and all(
            type(a) is type(b) and _get_public_attributes(a) == _get_public_attributes(b) for a, b in pairs
        )
    return _get_public_attributes(one) == _get_public_attributes(other)


def _get_public_attributes(value: Any) -> dict[str, Any]:
    """Return the public attributes of an object as plain values.

    An object among them becomes its class with its own attributes.
    """
    public = {name: each for name, each in vars(value).items() if not name.startswith("_") and name != "training"}
    return {name: _to_comparable(each) for name, each in public.items()}


def _to_comparable(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _to_comparable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_to_comparable(each) for each in value]
    if isinstance(value, nn.Module):  # compared on its own
        return type(value)
    if "__eq__" in type(value).__dict__ or inspect.isroutine(value):
        return value
    return (type(value), _get_public_attributes(value)) if hasattr(value, "__dict__") else value


def _make_unknown_error(value: Any, name: str) -> SettingError:
    kind = type(value).__name__
    return SettingError(
        f"{name} is a {kind} whose arguments cannot be read from it, so a checkpoint could not be loaded. Pass "
        f"functools.partial({kind}, ...), or keep each argument in an attribute of its name."
    )
