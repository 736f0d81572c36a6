"""Stand-ins run their packages at the first use and no sooner."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

DEFER = "from medseg_pl.cli.deferred_imports import defer_imports; defer_imports(); import sys\n"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", DEFER + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lightning_and_medseg_need_neither_all_metrics_nor_wandb() -> None:
    loaded = run("import medseg_pl.cli.run; print(*sys.modules)").split()
    assert "torchmetrics.metric" in loaded
    assert {"scipy.signal", "torchmetrics.functional.audio", "torchmetrics.image", "wandb.sdk"}.isdisjoint(loaded)
    assert {"pydicom", "scipy.ndimage", "scipy.sparse", "scipy.special._ufuncs", "skimage.morphology"}.isdisjoint(
        loaded
    )


def test_scipy_special_is_whole_at_its_first_use() -> None:
    lines = [
        "import albumentations, scipy.ndimage",
        "from scipy import special",
        "from scipy.special import expit",
        "print(special.expit(0.0), scipy.special is special, special.expit is expit, type(special).__name__)",
    ]
    assert run("\n".join(lines)) == "0.5 True True module\n"


def test_torchmetrics_is_whole_at_its_first_use() -> None:
    lines = [
        "import lightning.pytorch, torchmetrics",
        "from torchmetrics.classification import JaccardIndex",
        "assert type(torchmetrics).__name__ != 'module'",
        "from torchmetrics import *",
        "assert issubclass(MeanMetric, torchmetrics.Metric)",
        "print(torchmetrics.JaccardIndex is JaccardIndex, type(torchmetrics).__name__)",
    ]
    assert run("\n".join(lines)) == "True module\n"


def test_wandb_is_whole_at_its_first_use() -> None:
    pytest.importorskip("wandb")
    code = "import inspect, wandb; inspect.getmodule(sys); print('wandb.sdk' in sys.modules, callable(wandb.init))"
    assert run(code) == "False True\n"


def test_an_imported_package_stays_as_it_is() -> None:
    code = "import torchmetrics; torchmetrics.MeanMetric; defer_imports(); print(type(torchmetrics).__name__)"
    assert run(code) == "module\n"


def test_metrics_plot_with_the_real_module() -> None:
    lines = [
        "from medseg_pl.metrics import OverlapMetric",
        "from medseg_pl.core.labels import LabelMap",
        "assert 'matplotlib' not in sys.modules",
        "import matplotlib, torch; matplotlib.use('Agg')",
        "figure, axes = OverlapMetric(LabelMap(['a'], 'binary'))._plot(torch.tensor(1.0))",
        "print(type(figure).__name__, type(sys.modules['torchmetrics.utilities.plot']).__name__)",
    ]
    assert run("\n".join(lines)) == "Figure module\n"


def test_two_threads_get_the_whole_package() -> None:
    lines = [
        "import torchmetrics; from concurrent.futures import ThreadPoolExecutor",
        "with ThreadPoolExecutor(4) as pool:",
        "    classes = set(pool.map(lambda _: torchmetrics.JaccardIndex, range(4)))",
        "print(len(classes))",
    ]
    assert run("\n".join(lines)) == "1\n"
