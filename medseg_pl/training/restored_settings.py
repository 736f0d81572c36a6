"""Changed settings of optimizer, schedule and callbacks, put into the state that a resumed run restores.

A checkpoint brings back settings together with the state: the rates of a schedule, the decay of weights, the patience
of a callback. What was changed on purpose has to win over it, and what was not changed must stay to the last bit. So
each checkpoint notes what its settings made before the first step, and what differs from that is put into its state.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from lightning.pytorch import Callback

from medseg_pl.core.errors import SettingError
from medseg_pl.models.optimizers import is_score_driven

Made: TypeAlias = dict[str, Any]
"""What `make_optimization` returns: an optimizer, and perhaps a schedule with its interval."""


def describe_optimization(made: Made) -> dict[str, Any]:
    """Describe optimizer and schedule before the first step, by their settings."""
    configured = made.get("lr_scheduler", {})
    scheduler = configured.get("scheduler")
    return {
        "optimizer": type(made["optimizer"]).__name__,
        "groups": [_drop_parameters(group) for group in made["optimizer"].state_dict()["param_groups"]],
        "scheduler": type(scheduler).__name__ if scheduler else None,
        "interval": configured.get("interval"),
        "state": copy.deepcopy(scheduler.state_dict()) if scheduler else {},
    }


def apply_changed_optimization(checkpoint: dict[str, Any], now: dict[str, Any], make: Callable[[], Made]) -> list[str]:
    """Apply changed settings of optimizer and schedule to a restored state.

    A schedule whose settings changed stands where it would stand if it had had them from the beginning; one that
    follows scores keeps what it has made of the rate so far.

    Args:
        checkpoint: Is changed, where its settings differ; one that does not note them is left alone.
        now: The present settings, as `describe_optimization` has them.
        make: Makes optimizer and schedule anew.

    Returns:
        The differences, such as `lr_scheduler.gamma 0.1 → 0.5`.

    Raises:
        SettingError: The present schedule is over already.
    """
    before = checkpoint.get("optimization")
    if before is None or not (changes := _list_changes(before, now)):
        return []
    made = make()
    if before["optimizer"] != now["optimizer"] or len(before["groups"]) != len(now["groups"]):
        checkpoint["optimizer_states"] = [made["optimizer"].state_dict()]
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    reached = [group["lr"] for group in groups]
    for group, then, new in zip(groups, before["groups"], now["groups"], strict=False):
        group.update({key: value for key, value in new.items() if _is_different(then.get(key), value)})
    if now["scheduler"] is None:
        checkpoint["lr_schedulers"] = []
        # A rate that no schedule moved is the optimizer's own, or what a search has found.
        for group, new in zip(groups, now["groups"], strict=False) if before["scheduler"] is not None else ():
            group["lr"] = new["lr"]
    elif is_score_driven(made["lr_scheduler"]["scheduler"]):
        _keep_reductions(checkpoint, before, now, reached)
    elif _is_scheduled_otherwise(before, now):
        _replay(checkpoint, made)
    return changes


def has_same_learning_rate(checkpoint: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether the optimizer has the same rates as the checkpoint's.

    Args:
        checkpoint: A checkpoint; older ones do not say their rates, which differ then.
        now: The optimizer as `describe_optimization` describes it.
    """
    before = checkpoint.get("optimization")
    return before is not None and [_get_setting(group, "lr") for group in before["groups"]] == [
        _get_setting(group, "lr") for group in now["groups"]
    ]


def apply_changed_numbers(checkpoint: dict[str, Any], callbacks: Sequence[Callback]) -> list[str]:
    """Apply changed numbers of callbacks, such as a patience, to restored states.

    Args:
        checkpoint: Changed in place.
        callbacks: Those of the trainer, with the numbers that are set now.

    Returns:
        The differences, such as `EarlyStopping.patience 3 → 10`.
    """
    changes = []
    for callback in callbacks:
        state = checkpoint.get("callbacks", {}).get(callback.state_key, {})
        for name in inspect.signature(type(callback)).parameters:
            given = getattr(callback, name, None)
            if isinstance(given, int | float) and name in state and state[name] != given:
                changes.append(f"{type(callback).__name__}.{name} {state[name]} → {given}")
                state[name] = given
    return changes


def _replay(checkpoint: dict[str, Any], made: Made) -> None:
    """Step a new schedule to the checkpoint's position; take its state."""
    scheduler = made["lr_scheduler"]["scheduler"]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step\\(\\)` before")
            for _ in range(_count_schedule_steps(checkpoint, made["lr_scheduler"]["interval"])):
                scheduler.step()
    except ValueError as error:
        raise SettingError(
            f"model.lr_scheduler {type(scheduler).__name__} is over before the step that the run goes on from "
            f"({error}). Give it the length of the whole run."
        ) from error
    state = scheduler.state_dict()
    fresh = made["optimizer"].state_dict()["param_groups"]
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    for group, new in zip(groups, fresh, strict=False):
        group.update(_drop_parameters(new))
    # Groups that a callback has added since, as BackboneFinetuning does, go on at the rates that they have.
    for added in groups[len(fresh) :]:
        state["base_lrs"] = [*state["base_lrs"], added.get("initial_lr", added["lr"])]
        state["_last_lr"] = [*state["_last_lr"], added["lr"]]
    checkpoint["lr_schedulers"] = [state]


def _count_schedule_steps(checkpoint: Mapping[str, Any], interval: str) -> int:
    if interval == "step":
        return int(checkpoint["global_step"])
    loop = checkpoint["loops"]["fit_loop"]
    batches = loop["epoch_loop.batch_progress"]
    # Schedules are stepped at the last batch, before its epoch counts as done.
    ended = bool(batches["is_last_batch"] and batches["current"]["processed"])
    return int(loop["epoch_progress"]["current"]["processed"]) + ended


def _keep_reductions(
    checkpoint: dict[str, Any], before: Mapping[str, Any], now: Mapping[str, Any], reached: Sequence[float]
) -> None:
    """Apply changed settings to a schedule that follows scores.

    The rate stays as far reduced as it is.
    """
    states = checkpoint["lr_schedulers"] if before["scheduler"] == now["scheduler"] else [copy.deepcopy(now["state"])]
    states[0].update({key: now["state"][key] for key in _find_changed_keys(before["state"], now["state"])})
    same = before["scheduler"] == now["scheduler"]
    for group, rate, then, new in zip(
        checkpoint["optimizer_states"][0]["param_groups"], reached, before["groups"], now["groups"], strict=False
    ):
        group["lr"] = (
            rate if not _is_different(then["lr"], new["lr"]) else new["lr"] * (rate / then["lr"] if same else 1.0)
        )
    checkpoint["lr_schedulers"] = states


def _is_scheduled_otherwise(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether rates differ, or other values that a schedule may set."""
    # The optimizer's own settings do not count.
    cycled = ("lr", "initial_lr", "momentum", "betas")
    return (
        before["optimizer"] != now["optimizer"]
        or (before["scheduler"], before["interval"]) != (now["scheduler"], now["interval"])
        or bool(_find_changed_keys(before["state"], now["state"]))
        or any(
            _is_different(then.get(key), new.get(key))
            for then, new in zip(before["groups"], now["groups"], strict=False)
            for key in cycled
        )
    )


def _list_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs, each with its value then and now."""
    changes = [
        f"{part} {before[part]} → {now[part]}"
        for part in ("optimizer", "scheduler", "interval")
        if before[part] != now[part]
    ]
    if before["optimizer"] == now["optimizer"]:
        for then, new in zip(before["groups"], now["groups"], strict=False):
            keys = [key for key in _find_changed_keys(then, new) if key != "initial_lr"]
            changes += [f"optimizer.{key} {_get_setting(then, key)} → {_get_setting(new, key)}" for key in keys]
    if before["scheduler"] == now["scheduler"]:
        then, new = before["state"], now["state"]
        keys = [key for key in _find_changed_keys(then, new) if not key.startswith("_") and key != "base_lrs"]
        changes += [f"lr_scheduler.{key} {then[key]} → {new[key]}" for key in keys]
    return list(dict.fromkeys(changes))


def _get_setting(group: Mapping[str, Any], key: str) -> Any:
    """Return a setting of a parameter group before any schedule.

    A schedule changes the rate even before the first step.
    """
    return group.get("initial_lr", group["lr"]) if key == "lr" else group[key]


def _find_changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [key for key in now if key in before and _is_different(before[key], now[key])]


def _is_different(before: Any, now: Any) -> bool:
    if isinstance(before, torch.Tensor) or isinstance(now, torch.Tensor):
        return not torch.equal(torch.as_tensor(before), torch.as_tensor(now))
    if isinstance(before, list | tuple) and isinstance(now, list | tuple):  # a file has lists for tuples
        return len(before) != len(now) or any(map(_is_different, before, now))
    return bool(before != now)


def _drop_parameters(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
