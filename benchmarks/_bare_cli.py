"""A plain LightningCLI with the demo's network on a folder of images, to measure `medseg fit` against."""

from __future__ import annotations

from pathlib import Path

import albumentations
import numpy as np
import segmentation_models_pytorch as smp
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MetricCollection
from torchmetrics.segmentation import DiceScore, MeanIoU

SIZE = (96, 112)
VALIDATION = 5  # every fifth image


class Segmenter(LightningModule):
    def __init__(self, encoder_name: str = "tu-resnet10t", lr: float = 3e-3) -> None:
        super().__init__()
        shape = {"encoder_depth": 4, "decoder_channels": [128, 64, 32, 16], "in_channels": 3, "classes": 4}
        self.network = smp.Unet(encoder_name, encoder_weights=None, **shape)
        self.loss = smp.losses.DiceLoss("multiclass")
        how = {"num_classes": 4, "include_background": False, "input_format": "index"}
        self.scores = MetricCollection({"val_dice": DiceScore(**how), "val_iou": MeanIoU(**how)})
        self.lr = lr

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.loss(self.network(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        logits = self.network(batch[0])
        self.scores.update(logits.argmax(dim=1), batch[1])
        self.log("val_loss", self.loss(logits, batch[1]))
        self.log_dict(self.scores)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), self.lr)


class Slices(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, root: str, *, validation: bool) -> None:
        found = zip(*(sorted(Path(root, name).rglob("*.png")) for name in ("images", "masks")), strict=True)
        pairs = [pair for index, pair in enumerate(found) if (index % VALIDATION == 0) == validation]
        self.images, self.masks = zip(*pairs, strict=True)
        crop = [albumentations.PadIfNeeded(*SIZE), albumentations.RandomCrop(*SIZE), albumentations.HorizontalFlip()]
        self.augment = albumentations.Compose(crop)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = np.asarray(Image.open(self.images[index]), np.float32)[..., None].repeat(3, axis=2)
        done = self.augment(image=image, mask=np.asarray(Image.open(self.masks[index]), np.int64))
        return torch.from_numpy(done["image"]).permute(2, 0, 1), torch.from_numpy(done["mask"]).long()


class Data(LightningDataModule):
    def __init__(self, root: str, batch_size: int = 16) -> None:
        super().__init__()
        self.root, self.batch_size = root, batch_size

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(Slices(self.root, validation=False), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(Slices(self.root, validation=True), self.batch_size)


if __name__ == "__main__":
    LightningCLI(Segmenter, Data)
