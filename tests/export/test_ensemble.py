"""An exported ensemble predicts what its members do together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medseg_pl.__main__ import main
from medseg_pl.core.geometry import Geometry
from medseg_pl.core.image_facts import measure_image
from medseg_pl.core.training_profile import describe_training
from medseg_pl.export import runner
from medseg_pl.export.exporter import EnsembleNetwork
from medseg_pl.inference.predictor import Predictor
from medseg_pl.models.ensemble_file import write_ensemble
from tests.export.checkpoints import OURS, write_checkpoint

PLUGINS = OURS.rsplit(".", 1)[0]


class Fixed(nn.Module):
    """Gives the same logits for every image."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits).reshape(1, -1, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(image), -1, *image.shape[2:])


@pytest.mark.parametrize("exclusive", [True, False])
def test_probabilities_are_the_mean(exclusive: bool) -> None:
    members = [Fixed(0.0, 2.0, -3.0), Fixed(1.0, -60.0, 4.0), Fixed(-100.0, 90.0, 0.5)]
    image = torch.zeros(2, 1, 1, 1)

    def activate(logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(1) if exclusive else logits.sigmoid()

    mean = torch.stack([activate(member(image)) for member in members]).mean(0)
    torch.testing.assert_close(activate(EnsembleNetwork(members, exclusive=exclusive)(image)), mean)


@pytest.fixture
def ensemble(tmp_path: Path) -> Path:
    """Two checkpoints of one network with other weights."""
    paths = []
    for number in range(2):
        path = Path(write_checkpoint(tmp_path / f"{number}.ckpt", tta="flips", context_slices=1))
        content = torch.load(path, weights_only=True)
        generator = torch.Generator().manual_seed(number)
        for value in content["state_dict"].values():
            if value.is_floating_point():
                value.mul_(1 + 0.2 * torch.randn(value.shape, generator=generator))
        torch.save(content, path)
        paths.append(path)
    write_ensemble(tmp_path / "ensemble.json", paths)
    return tmp_path / "ensemble.json"


@pytest.mark.trainings
def test_an_exported_ensemble_predicts_what_its_members_do(ensemble: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    assert main(["export", "--ckpt_path", str(ensemble), "-o", str(out), "--plugins", PLUGINS]) == 0
    image = np.random.default_rng(0).normal(100, 30, (1, 3, 40, 48)).astype(np.float32)
    predictor = Predictor.from_checkpoint(ensemble, device="cpu", plugins=[PLUGINS])
    assert len(predictor.models) == 2
    expected = predictor.predict(image)
    mask, probabilities = runner.Model(out).predict(image, probabilities=True)
    assert expected.probabilities is not None
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-4)
    assert (mask == expected.mask).mean() > 0.999
    card = (out / "MODEL_CARD.md").read_text()
    assert "Exported from `ensemble.json`" in card and "It is an ensemble" in card


def test_an_exported_ensemble_finds_what_its_members_do(ensemble: Path, tmp_path: Path) -> None:
    """Dark images are foreign to the first member alone, bright ones to the second: half of them is enough."""
    for number, level in enumerate((100, 10000)):
        path = tmp_path / f"{number}.ckpt"
        images = [np.random.default_rng(seed).normal(level, 30, (1, 3, 40, 48)) for seed in range(12)]
        profile = describe_training([measure_image(image.astype(np.float32)) for image in images], [])
        assert profile is not None
        torch.save(torch.load(path, weights_only=True) | {"training_profile": profile.as_dict()}, path)
    out = tmp_path / "exported"
    assert main(["export", "--ckpt_path", str(ensemble), "-o", str(out), "--plugins", PLUGINS]) == 0
    predictor, model = Predictor.from_checkpoint(ensemble, device="cpu", plugins=[PLUGINS]), runner.Model(out)
    assert len(model.profiles) == 2
    for level in (100, 10000):
        image = np.random.default_rng(99).normal(level, 30, (1, 3, 40, 48)).astype(np.float32)
        found = model.compare_image(image, Geometry((3, 40, 48)))
        assert found and tuple(found) == predictor.predict(image).findings


def test_what_no_graph_can_average_is_refused(
    ensemble: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "exported")
    assert main(["export", "--ckpt_path", str(ensemble), "-o", out, "--plugins", PLUGINS, "--measure"]) == 2
    assert "--measure needs cases" in capsys.readouterr().err
    write_checkpoint(tmp_path / "1.ckpt", context_slices=0, tta="flips")
    assert main(["export", "--ckpt_path", str(ensemble), "-o", out, "--plugins", PLUGINS]) == 2
    assert "differs from" in capsys.readouterr().err
    assert not Path(out).exists()
