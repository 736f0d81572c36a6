"""Fine-tuning: an encoder that is frozen, and learning rates and weight decay by part of a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from medseg_pl.core.errors import SettingError

NETWORK, ENCODER = "network", "encoder"
"""Names of parts, before the names of their parameter groups."""
_NO_DECAY = ", no decay"


@dataclass(frozen=True)
class FineTuning:
    """How the parts of a network train.

    Args:
        freezes_encoder: Whether the encoder begins frozen.
        unfreeze_epoch: The epoch in which it begins to train; `None` for never.
        encoder_lr_factor: Multiplies the encoder's learning rate.
        decays_all: Whether weight decay acts on biases and scales, too.
    """

    freezes_encoder: bool = False
    unfreeze_epoch: int | None = None
    encoder_lr_factor: float = 1.0
    decays_all: bool = False

    def check(self, network: nn.Module) -> None:
        """Check the settings against the network.

        Raises:
            SettingError: They contradict each other, or the network has no encoder.
        """
        if self.unfreeze_epoch is not None and not self.freezes_encoder:
            raise SettingError("model.unfreeze_epoch is set, but nothing is frozen. Set model.freeze to encoder.")
        if self.unfreeze_epoch is not None and self.unfreeze_epoch < 1:
            raise SettingError(f"model.unfreeze_epoch must be at least 1; got {self.unfreeze_epoch}.")
        if not self.encoder_lr_factor > 0:
            raise SettingError(
                f"model.encoder_lr_factor must be greater than 0; got {self.encoder_lr_factor}. Set model.freeze to "
                "encoder to keep the encoder as it is."
            )
        if self.freezes_encoder or self.encoder_lr_factor != 1:
            get_encoder(network)

    def freeze(self, network: nn.Module, epoch: int) -> None:
        """Freeze or thaw the encoder for an epoch.

        A frozen encoder has no gradients, and its batch normalization keeps its stored statistics.
        """
        if not self.freezes_encoder:
            return
        # From the epoch alone, so that a resumed run freezes and thaws like one that never stopped.
        trains = self.unfreeze_epoch is not None and epoch >= self.unfreeze_epoch
        get_encoder(network).requires_grad_(trains).train(trains)

    def group(self, module: nn.Module, network: nn.Module) -> list[dict[str, Any]]:
        """Group the parameters of a module for an optimizer.

        Args:
            module: Holds all parameters, those of the loss as well.
            network: A part of it, whose encoder may have a learning rate of its own.

        Returns:
            See `group_parameters`.
        """
        # One rate needs no groups by part, and a network without an encoder has none to ask for.
        encoder = get_encoder(network) if self.encoder_lr_factor != 1 else None
        return group_parameters(module, encoder, decays_all=self.decays_all)


def get_encoder(network: nn.Module) -> nn.Module:
    """Return the encoder of a network.

    Raises:
        SettingError: It has no part of this name.
    """
    encoder = getattr(network, ENCODER, None)
    if isinstance(encoder, nn.Module):
        return encoder
    raise SettingError(
        f"{type(network).__name__} has no part called encoder, which model.freeze and model.encoder_lr_factor need. "
        "Leave them out, or call your network's feature extractor `encoder`."
    )


def group_parameters(
    module: nn.Module, encoder: nn.Module | None = None, *, decays_all: bool = False
) -> list[dict[str, Any]]:
    """Group the trained parameters by part, and by weight decay.

    Matrices and convolution kernels decay; biases and the scales of normalization layers, which have one axis, do not:
    pulled to zero they would only switch channels off.

    Args:
        module: Holds all parameters, those of the loss as well.
        encoder: A part with a learning rate of its own.
        decays_all: Whether every parameter decays.

    Returns:
        Parameter groups of an optimizer with their `name`; empty groups are left out.

    >>> layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    >>> [(group["name"], len(group["params"])) for group in group_parameters(layers)]
    [('network', 1), ('network, no decay', 3)]
    """
    # By identity: `in` would compare tensors value by value.
    inside = {id(parameter) for parameter in encoder.parameters()} if encoder is not None else set()
    groups: dict[str, list[nn.Parameter]] = {
        part + suffix: [] for part in (NETWORK, ENCODER) for suffix in ("", _NO_DECAY)
    }
    for parameter in module.parameters():
        # Frozen parameters come in when they are thawed, as Lightning's finetuning callbacks expect.
        if parameter.requires_grad:
            part = ENCODER if id(parameter) in inside else NETWORK
            groups[part + ("" if decays_all or parameter.ndim > 1 else _NO_DECAY)].append(parameter)
    return [{"name": name, "params": parameters} for name, parameters in groups.items() if parameters]


def set_group_rates(groups: Iterable[dict[str, Any]], encoder_factor: float) -> None:
    """Set learning rate and weight decay of groups by their names.

    Args:
        groups: Those of an optimizer.
        encoder_factor: Multiplies the learning rate of the encoder's groups.
    """
    for group in groups:
        name = group.get("name", "")
        if name.startswith(ENCODER):
            group["lr"] *= encoder_factor
        if name.endswith(_NO_DECAY) and "weight_decay" in group:
            group["weight_decay"] = 0.0


def get_part(group: dict[str, Any]) -> str | None:
    """Return the part of a network that a parameter group belongs to."""
    name = group.get("name")
    return None if name is None else str(name).removesuffix(_NO_DECAY)
