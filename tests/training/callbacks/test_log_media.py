"""Dashboards as they are written: read back from W&B's run file and from TensorBoard's."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest

from medseg_pl.cli.commands.phantom import write_phantom
from tests.end_to_end.conftest import SMALL
from tests.training.callbacks import wandb_file

pytestmark = pytest.mark.processes

pytest.importorskip("wandb")

PLANTED = {
    "user": "planteduser01",
    "host": "plantedhost02",
    "home": "plantedhome03",
    "folder": "plantedfolder04",
    "case": "case3141592",
    "second case": "case2718281",
    "experiment": "plantedexperiment07",
    "remote": "plantedremote08",
    "weights": "plantedweights09",
    "directory": "planteddirectory10",
}
BOARDS = """
trainer:
  limit_train_batches: 4
  callbacks:
    - class_path: medseg_pl.training.callbacks.MediaLogger
      init_args: {overlays: 1}
  logger:
    - class_path: lightning.pytorch.loggers.WandbLogger
      init_args: {project: medseg, save_dir: ../boards, offline: true}
    - class_path: lightning.pytorch.loggers.TensorBoardLogger
      init_args: {save_dir: .., name: tensorboard, default_hp_metric: false}
"""


class Planted(NamedTuple):
    """Runs in processes of their own, in which everything personal has a name that can be searched for."""

    folder: Path
    run: Path
    boards: Path
    home: Path

    def run_files(self) -> list[Path]:
        """W&B's, the oldest first."""
        return sorted(self.boards.rglob("*.wandb"), key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A fit with pictures on two dashboards, a test of its checkpoint, and more of the fit, all in one W&B run."""
    folder = tmp_path_factory.mktemp("boards") / PLANTED["folder"]
    here, home, data = folder / PLANTED["directory"], folder / PLANTED["home"], folder / "data"
    write_phantom(data, "uw_madison", cases=8, seed=0, slices=4, size=(40, 36))
    rename_cases(data)
    for path in (here, home):
        path.mkdir()
    subprocess.run(["git", "init", "--quiet", here], check=True)
    subprocess.run(
        ["git", "-C", here, "remote", "add", "origin", f"https://{PLANTED['remote']}.invalid/x.git"], check=True
    )
    (here / "boards.yaml").write_text(BOARDS)
    demo, offline = (Path(f"configs/{name}.yaml").resolve() for name in ("experiment/demo", "logger/wandb_offline"))
    experiment = ["--experiment", PLANTED["experiment"], "--runs", "runs", "--model.surface_metrics=false"]
    fit = ["fit", f"--config={demo}", "--config=boards.yaml", *SMALL, *experiment, f"--data.source.root={data}"]
    fit.append("--data.split_fractions=[0.6,0.2,0.2]")  # four cases to train on
    run = here / "runs" / PLANTED["experiment"] / "version_0"
    save_dir = f"--trainer.logger.init_args.save_dir={folder / 'boards'}"
    test = ["test", f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}", f"--config={offline}", save_dir]
    more = [*fit, "--trainer.max_epochs=2", "--ckpt_path=last"]
    (here / "medseg_in_process.py").write_text(
        "import sys, wandb\nfrom medseg_pl.__main__ import main\n"
        "for arguments in sys.argv[1].split('\\n'):\n    assert main(arguments.split(' ')) == 0\n    wandb.finish()\n"
    )
    started = subprocess.run(
        [sys.executable, "medseg_in_process.py", "\n".join(" ".join(line) for line in (fit, test, more))],
        cwd=here,
        env=personal_environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    return Planted(folder, run, folder / "boards", home)


def rename_cases(data: Path) -> None:
    """Give two patients, and so their cases, names to be searched for; the third one's stay."""
    patients = sorted(path.name for path in (data / "train").iterdir())
    new = dict(zip(patients, (PLANTED["case"], PLANTED["second case"]), strict=False))
    table = data / "train.csv"
    text = table.read_text()
    for old, name in new.items():
        for path in sorted((data / "train" / old).iterdir()):
            path.rename(path.with_name(path.name.replace(old, name)))
        (data / "train" / old).rename(data / "train" / name)
        text = text.replace(f"{old}_", f"{name}_")
    table.write_text(text)


def personal_environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "COV"))}
    user = dict.fromkeys(("USER", "USERNAME", "LOGNAME"), PLANTED["user"])
    host = dict.fromkeys(("HOSTNAME", "HOST"), PLANTED["host"])
    python_path = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, **user, **host, "HOME": str(home), "WANDB_SILENT": "true", "PYTHONPATH": python_path}


def contents(path: Path) -> list[bytes]:
    """The bytes of a file, and what is packed in them."""
    raw = path.read_bytes()
    found = [raw]
    for unpack in (gzip.decompress, zlib.decompress):
        try:
            found.append(unpack(raw))
        except (OSError, EOFError, zlib.error):
            continue
    return found


def test_nothing_personal_is_written(planted: Planted) -> None:
    written = [path for path in planted.boards.rglob("*") if path.is_file() or path.is_symlink()]
    assert len(written) > 5
    assert not [path for path in written if path.is_symlink()]
    secrets = [*PLANTED.values(), "medseg_in_process", str(planted.folder.parent)]
    for path in written:
        name = path.relative_to(planted.boards).as_posix()
        text = b"\n".join([name.encode(), *contents(path)]).lower()
        assert not [secret for secret in secrets if secret.lower().encode() in text], name
    assert {path.name for path in written}.isdisjoint({"wandb-metadata.json", "requirements.txt", "output.log"})
    assert not list(planted.home.rglob("staging/*"))  # no copy beside


def test_the_machine_is_not_named(planted: Planted) -> None:
    # Among decoded values and as a word: a host's name may be of two letters, which checksums hold by chance.
    host = re.compile(rf"\b{re.escape(os.uname().nodename)}\b", re.IGNORECASE)
    for path in planted.run_files():
        records = wandb_file.records(path)
        kinds = {record.WhichOneof("record_type") for record in records}
        assert "run" in kinds
        assert "environment" not in kinds
        assert not [record for record in records if record.run.host or host.search(str(record))]


def test_the_planted_names_were_in_use(planted: Planted) -> None:
    assert PLANTED["case"] in (planted.run / "splits.json").read_text()
    assert PLANTED["experiment"] in str(planted.run)


def test_the_run_file_holds_metrics_settings_and_summary(planted: Planted) -> None:
    fit = planted.run_files()[0]
    history = wandb_file.history(fit)
    expected = {"train/loss", "val/loss", "val/dice", "val/dice/stomach", "val/iou", "val/iou/stomach", "lr-AdamW"}
    assert expected <= history.keys()
    assert len(history["train/loss"]) == 4
    assert len(history["train/images_per_second"]) == 4
    assert min(history["train/images_per_second"]) > 0
    settings = wandb_file.config(fit)
    assert settings["model"]["network"]["init_args"]["encoder_name"] == "tu-resnet10t"
    assert settings["data"]["source"] == "UWMadisonSource"
    assert settings["trainer"]["effective_batch_size"] == 4
    summary = wandb_file.summary(fit)
    scores = json.loads((planted.run / "summary_val.json").read_text())
    assert summary["best/epoch"] == 0
    assert summary["best/val/dice"] == pytest.approx(scores["foreground_mean"]["dice"], abs=1e-6)
    assert summary["final/val/dice/stomach"] == pytest.approx(scores["labels"]["stomach"]["dice"]["mean"])
    assert any(record.WhichOneof("record_type") == "stats" for record in wandb_file.records(fit))


def test_the_table_has_a_row_for_each_case_and_label_under_hashed_names(planted: Planted) -> None:
    from medseg_pl.training.callbacks import Pseudonyms

    fit = planted.run_files()[0]
    (path,) = wandb_file.history(fit)["scores/val.path"]
    table = json.loads((fit.parent / "files" / path).read_text())
    names = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    record = Pseudonyms.read(planted.run)
    assert record is not None
    cases = json.loads((planted.run / "splits.json").read_text())["val"]
    assert {row["case_id"] for row in names} == {record.pseudonym("case", case) for case in cases}
    assert len(names) == 3 * len(cases)
    assert {"dice", "iou", "label", "group", "status"} <= set(table["columns"])
    assert (planted.run / "dashboard.json").stat().st_mode & 0o077 == 0


def test_fixed_and_worst_cases_have_masks_with_label_names(planted: Planted) -> None:
    fit = planted.run_files()[0]
    history = wandb_file.history(fit)
    for name in ("fixed", "worst"):
        masks = history[f"val/overlays/{name}.all_masks"][-1]
        layers = {f"{kind} {organ}" for kind in ("prediction", "reference") for organ in ("large_bowel", "stomach")}
        assert layers <= masks[0].keys()
        for layer in masks[0].values():
            assert (fit.parent / "files" / layer["path"]).is_file()
    classes = wandb_file.config(fit)["_wandb"]["mask/class_labels"]
    assert {"0": "background", "3": "stomach"} in [each["value"] for each in classes.values()]


def test_the_test_of_a_run_goes_on_in_the_same_run(planted: Planted) -> None:
    fit, test, _ = planted.run_files()
    assert wandb_file.run_ids(fit) == wandb_file.run_ids(test)
    assert wandb_file.history(test)["scores/test.nrows"]
    assert "final/test/dice" in wandb_file.summary(test)


def test_a_fit_that_goes_on_does_so_in_the_same_run(planted: Planted) -> None:
    fit, _, more = planted.run_files()
    assert wandb_file.run_ids(more) == wandb_file.run_ids(fit)
    assert sorted(path.name for path in planted.run.parent.iterdir()) == ["version_0"]
    assert min(wandb_file.history(more)["epoch"]) == 1  # the second, and no first one again


def test_no_pixel_is_written_unless_asked(planted: Planted) -> None:
    _, test, _ = planted.run_files()  # `test` was not asked for pictures
    assert not list(test.parent.rglob("*.png"))
    assert not [name for name in wandb_file.history(test) if "overlays" in name]


def test_a_run_that_goes_on_keeps_its_id_unless_the_logger_names_one(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import WandbLogger

    from medseg_pl.training.callbacks import make_private

    logger, named = WandbLogger(save_dir=tmp_path), WandbLogger(save_dir=tmp_path, id="mine")
    for each in (logger, named):
        make_private(each, "kept")
    assert (logger.version, named.version) == ("kept", "mine")
    assert logger._wandb_init["id"] == "kept"
    assert logger._wandb_init["resume"] == "allow"


def test_settings_of_ones_own_stay_but_for_what_is_personal(tmp_path: Path) -> None:
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    from medseg_pl.training.callbacks import make_private

    own = wandb.Settings(x_stats_sampling_interval=3.0, host="somewhere", console="wrap")
    logger = WandbLogger(save_dir=tmp_path, settings=own, save_code=True)
    make_private(logger)
    settings = logger._wandb_init["settings"]
    assert (settings.x_stats_sampling_interval, settings.host, settings.console) == (3.0, "", "off")
    assert logger._wandb_init["save_code"] is False


def test_disabled_mode_writes_nothing(tmp_path: Path) -> None:
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    from medseg_pl.training.dashboards import log_scores, log_settings, log_summary, make_private

    logger = WandbLogger(save_dir=tmp_path, project="p", mode="disabled")
    make_private(logger)
    log_settings(logger, {"model": {"depth": 3}})
    log_scores(logger, "val", [{"case_id": "x", "dice": 0.5}])
    log_summary(logger, {}, {"best/epoch": 1})
    logger.experiment.finish()
    wandb.teardown()  # W&B would hold the next test's run to this one's environment
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_shows_scalars_table_and_pictures(planted: Planted) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written = EventAccumulator(str(planted.folder / "tensorboard" / "version_0")).Reload()
    tags = written.Tags()
    assert {"train/loss", "val/dice/stomach", "lr-AdamW", "train/images_per_second"} <= set(tags["scalars"])
    assert {"val/overlays/fixed/0", "val/overlays/worst/0"} <= set(tags["images"])
    (text,) = written.Tensors("scores/val/text_summary")
    table = text.tensor_proto.string_val[0].decode()
    cases = json.loads((planted.run / "splits.json").read_text())["val"]
    assert table.count("\n") == 1 + 3 * len(cases)
    assert not [case for case in cases if case in table]
