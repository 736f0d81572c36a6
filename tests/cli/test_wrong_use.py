"""Typical wrong commands, each answered with one short sentence that names the setting and the remedy."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest
from lightning.pytorch import Trainer

from medseg_pl.__main__ import MODULES, main
from medseg_pl.cli import crossval, help_pages, tune
from medseg_pl.cli.commands import FILE_COMMANDS
from medseg_pl.cli.lightning_cli import TrainerParser, make_parser
from medseg_pl.cli.parser import CommandParser, EarlyParser, describe_instantiation_error, list_options
from medseg_pl.cli.wrong_use import OPEN, OTHER_SETTINGS, OWN, SETTINGS, check_arguments
from medseg_pl.core.errors import OutputExistsError, SettingError

FIT = "fit --config configs/experiment/demo.yaml"
MOST_LETTERS = 200
AT_ONCE = {
    "train --config configs/experiment/demo.yaml": "It is medseg fit.",
    "predct --input a": "Did you mean predict?",
    "infer --input a": "It is medseg predict.",
    "eval best.ckpt": "It is medseg test",
    "finetune": "fit --model.pretrained FILE",
    "fit": "medseg plan mydata -o plan.yaml",
    "fit --data.source.root scans": "medseg plan scans -o plan.yaml",
    "fit --data_root 'my scans'": "medseg plan 'my scans' -o plan.yaml",
    "fit plan.yaml": "--config plan.yaml",
    "fit --config configs/experiment/demmo.yaml": "Did you mean configs/experiment/demo.yaml?",
    "fit --config nowhere.yaml": "The shipped ones are in",
    "fit --config confgs/x.yaml": "The shipped ones are in",
    "fit --config configs/model/chase.yaml": "Did you mean configs/experiment/chase_db1.yaml?",
    "fit --config configs/demo.yaml": "Did you mean configs/experiment/demo.yaml?",
    f"{FIT} --lr 0.01": "--model.optimizer.lr X",
    f"{FIT} --learning-rate 0.01": "--model.optimizer.lr X",
    f"{FIT} --epochs 3": "--trainer.max_epochs N",
    f"{FIT} --lr 1 --epochs 3": "It has no --epochs. Use --trainer.max_epochs N.",
    f"{FIT} --batch_size 4": "--data.batch_size N",
    f"{FIT} --batch-size=4": "--data.batch_size N",
    f"{FIT} --gpus 2": "--trainer.devices N",
    f"{FIT} --device cuda": "--trainer.accelerator cpu or gpu",
    f"{FIT} --data mydata": "--data_root mydata",
    f"{FIT} --encoder resnet50": "--model.network.encoder_name NAME",
    f"{FIT} --num_classes 3": "--model.labels.names '[a, b]'",
    f"{FIT} --img_size 256": "--model.input_size '[h, w]'",
    f"{FIT} --resume": "--ckpt_path last",
    f"{FIT} --seed 1": "--seed_everything N",
    f"{FIT} --wandb": "--config configs/logger/wandb.yaml",
    f"{FIT} --patience 10": "EarlyStopping --trainer.callbacks.monitor=val/dice",
    f"{FIT} --trainer.max_epoch 3": "--trainer.max_epochs",
    f"{FIT} --data.batchsize 3": "--data.batch_size",
    f"{FIT} --data.num-workers 3": "--data.num_workers",
    f"{FIT} --model.labels.names lesion": "--model.labels.names '[lesion]'",
    f"{FIT} --model.labels.names liver tumor": "--model.labels.names '[liver, tumor]'",
    f"{FIT} --model.input_size 256": "--model.input_size '[256, 256]'",
    f"{FIT} --model.spacing_mm 0.5": "--model.spacing_mm '[0.5, 0.5]'",
    f"{FIT} --data.split_fractions [0.6, 0.2, 0.2]": (
        "A shell splits [0.6, 0.2, 0.2]. Quote it: --data.split_fractions '[0.6, 0.2, 0.2]' (train, val, test)."
    ),
    f"{FIT} --data.split_fractions=[0.6, 0.2, 0.2]": "Quote it: --data.split_fractions '[0.6, 0.2, 0.2]'",
    f"{FIT} --data.split_fractions 0.6 0.2 0.2": "Write --data.split_fractions '[0.6, 0.2, 0.2]'.",
    f"{FIT} --data.split_fractions '[0.6, 0.2]'": "takes three numbers (train, val, test)",
    f"{FIT} --data.split_fractions 0.2": "as in --data.split_fractions '[0.6, 0.2, 0.2]'",
    f"{FIT} --model.input_size [64, 64]": "Quote it: --model.input_size '[64, 64]' (height, width).",
    f"{FIT} --model.input_size '[256]'": "takes two numbers (height, width)",
    f"{FIT} --model.input_size 64 64 64": "takes two numbers (height, width)",
    f"{FIT} --model.spacing_mm '[1, 1, 1]'": "takes two numbers (y, x)",
    f"{FIT} --model.labels.names [a, b]": "Quote it: --model.labels.names '[a, b]'.",
    f"{FIT} --model.labels.values [1, 2]": "Quote it: --model.labels.values '[1, 2]'.",
    f"{FIT} --trainer.devices [0, 1]": "Quote it: --trainer.devices '[0, 1]'.",
    f"{FIT} --model.labels.colors {{a: red, b: blue}}": "Quote it: --model.labels.colors '{a: red, b: blue}'.",
    f"{FIT} --trainer.logger wandb": "--config configs/logger/wandb.yaml",
    f"{FIT} --trainer.callbacks EarlyStopping": "--trainer.callbacks.monitor=val/dice",
    f"{FIT} --trainer.callbacks+=EarlyStopping": "--trainer.callbacks.monitor=val/dice",
    "test": "needs --ckpt_path: a file such as",
    "test best.ckpt": "--ckpt_path best.ckpt",
    "test --checkpoint best.ckpt": "needs --ckpt_path, not --checkpoint",
    "predict --input a --output b": "needs --ckpt_path",
    "predict --ckpt_path best --inputs a --output b": "needs --input, not --inputs",
    "predict --ckpt_path best --input a": "needs --output",
    "crossval --jobs 2": "medseg crossval --config plan.yaml",
    "crossval --config configs/experiment/demo.yaml --experiment cv --minutes 1": (
        "medseg crossval has no --minutes, which belongs to medseg plan: plan again with it."
    ),
    f"{FIT} --masks outlines": "has no --masks, which belongs to medseg plan: plan again with it.",
    f"{FIT} --jobs 2": "medseg fit has no --jobs, which belongs to medseg crossval and tune: give it there.",
    f"{FIT} --input images": "has no --input, which belongs to medseg predict: give it there.",
    f"{FIT} -o masks": "has no --output, which belongs to medseg predict, evaluate, export and others: give it there.",
    f"{FIT} --task multilabel": "Use --model.labels.task.",
    "test --ckpt_path best --html page.html": "has no --html, which belongs to medseg check: give it there.",
    f"{FIT.replace('fit', 'tune')} --trials 3": "--space FILE, such as configs/sweeps/learning_rate.yaml",
    f"cross{FIT} --folds 5".replace("crossfit", "crossval"): "--data.folds N",
}
"""What is answered before torch is imported."""
PARSED = {
    "--trainer.max_epochs ten": "trainer.max_epochs: expected a whole number",
    "--model.labels.task multi": "model.labels.task: expected one of binary, multiclass, multilabel",
    "--model.tta yes": "model.tta: expected one of none, horizontal, vertical, flips, all",
    "--model.network Unett": "Did you mean Unet?",
    "--model.optimizer Adamm": "Did you mean Adam",
    "--model.loss segmentation_models_pytorch.losses.FocalLoss": "--model.loss.mode VALUE",
    "--trainer.callbacks+=EarlyStoping": "Did you mean EarlyStopping?",
    "--model.network.init_args.encoder resnet18": "Did you mean encoder_name?",
    "--data.source.rot x": "Did you mean root?",
}
"""What the parser answers."""


def is_short(sentence: str) -> bool:
    return len(sentence.splitlines()) == 1 and len(sentence) <= MOST_LETTERS


def answer_without_torch(lines: Iterable[str], folder: Path | None = None) -> list[tuple[int, str]]:
    """Run commands in a process of their own, and return their exit codes and answers."""
    code = (
        "import contextlib, io, json, shlex, sys; from medseg_pl.__main__ import main\n"
        "answers = []\n"
        "for line in json.load(sys.stdin):\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as said:\n"
        "        answers.append((main(shlex.split(line)), said.getvalue().removeprefix('medseg: ').strip()))\n"
        "print(json.dumps([answers, sorted({'torch', 'lightning', 'jsonargparse'} & set(sys.modules))]))"
    )
    words = json.dumps(list(lines))
    done = subprocess.run(
        [sys.executable, "-c", code], input=words, capture_output=True, text=True, check=True, cwd=folder
    )
    answers, imported = json.loads(done.stdout)
    assert imported == []
    return [(exit_code, said) for exit_code, said in answers]


def test_typical_mistakes_are_answered_before_torch_is_imported() -> None:
    for (line, remedy), (exit_code, sentence) in zip(AT_ONCE.items(), answer_without_torch(AT_ONCE), strict=True):
        assert exit_code == 2, line
        assert remedy in sentence, f"{line}: {sentence}"
        assert is_short(sentence), f"{line}: {sentence}"


def test_files_that_are_there_or_missing_are_answered_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    for name in ("page.html", "plan.yaml", "full/a.png"):
        (tmp_path / name).touch()
    remedies = {
        "check full --html page.html": "such as page_2.html",
        "plan full -o plan.yaml": "such as plan_2.yaml",
        "plan full --output=plan.yaml": "such as plan_2.yaml",
        "report full -o page.html": "such as page_2.html",
        "compare full full --csv page.html": "such as page_2.html",
        "postprocess --ckpt_path a.ckpt -o plan.yaml": "such as plan_2.yaml",
        "export --ckpt_path a.ckpt -o full": "full exists and is not empty",
        "evaluate --reference full --prediction full -o full": "full exists and is not empty",
        "new full": "full exists and is not empty",
        "phantom full": "full exists and is not empty",
        "review --ckpt_path a.ckpt -o full": "full exists and is not empty",
        "predict --ckpt_path a.ckpt --input ful -o masks": "--input ful does not exist. Did you mean full?",
        "predict --ckpt_path a.ckpt --input nowhere -o masks": "--input nowhere does not exist",
    }
    for (line, remedy), (exit_code, sentence) in zip(
        remedies.items(), answer_without_torch(remedies, tmp_path), strict=True
    ):
        assert exit_code == 1, line
        assert remedy in sentence, f"{line}: {sentence}"
        assert is_short(sentence), f"{line}: {sentence}"


def test_forty_typical_mistakes_are_in_the_table() -> None:
    assert len(AT_ONCE) + len(PARSED) >= 40


@pytest.fixture(scope="module")
def parser() -> TrainerParser:
    made = make_parser("fit")
    assert isinstance(made, TrainerParser)
    return made


@pytest.mark.parametrize(("words", "remedy"), PARSED.items())
def test_a_value_that_does_not_fit_is_answered_in_words(parser: TrainerParser, words: str, remedy: str) -> None:
    with pytest.raises(SettingError) as caught:
        parser.parse_args(["--config", "configs/experiment/demo.yaml", *shlex.split(words)])
    assert remedy in str(caught.value)
    assert is_short(str(caught.value))


def test_a_configuration_that_is_a_part_is_told_from_a_whole_one(parser: TrainerParser) -> None:
    with pytest.raises(SettingError, match=r"medseg plan DIR -o plan\.yaml") as caught:
        parser.parse_args(["--config", "configs/model/tiny.yaml"])
    assert is_short(str(caught.value))


def test_a_gpu_that_is_not_there() -> None:
    sentence = describe_instantiation_error("No supported gpu backend found!")
    assert "--trainer.accelerator cpu" in sentence
    assert is_short(sentence)


@pytest.mark.parametrize(("name", "hint"), [("dpp", "Did you mean ddp?"), ("horovod", "Choose one of auto, ddp")])
def test_a_strategy_that_does_not_exist(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match="strategy") as caught:
        Trainer(strategy=name, accelerator="cpu", logger=False)
    sentence = describe_instantiation_error(str(caught.value))
    assert hint in sentence and is_short(sentence)


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("plan mydata", "medseg plan needs --output CONFIG"),
        ("compare a", "medseg compare needs B"),
        ("export --ckpt_path a.ckpt", "medseg export needs --output"),
        ("check nowhere", "Give the folder that holds it"),
    ],
)
def test_other_commands_name_what_they_lack(words: str, needed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(words)) in (1, 2)
    said = capsys.readouterr().err.removeprefix("medseg: ").strip()
    assert needed in said
    assert is_short(said)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("plan --label x --grup y -o z", "--label: did you mean --labels? There is no --grup: did you mean --group?"),
        ("evaluate --referense a --prediktion b", "--referense: did you mean --reference? There is no --prediktion"),
        ("plan my data/images -o z", "Quote the path: 'my data/images'."),
        ("check --data_root=my data", "Quote the path: 'my data'."),
        ("predict --ckpt_path a.ckpt --input my data --output z", "Quote the path: 'my data'."),
        ("plan data -o my plan.yaml", "does not take 'plan.yaml'. Quote a path that has spaces."),
        ("export runs/a", "Write its option before it, such as --ckpt_path"),
        ("check data --minutes 1", "There is no --minutes here: it belongs to medseg plan. See"),
        (
            "report runs/a --trainer.devices 2",
            "no --trainer.devices here: it belongs to medseg fit and others. See",
        ),
        ("check data -o page.html", "There is no -o here: it belongs to medseg predict, evaluate, export and others"),
        ("check data -c plan.yaml", "There is no -c: did you mean --config?"),
        ("plan data --num-workers 1 -o z", "There is no --num-workers: did you mean --num_workers?"),
        ("plan data --minutes 0 -o z", "--minutes: expected a number above 0"),
        ("check --config plan.yml", "Did you mean plan.yaml?"),
        ("fit --config plan.yml", "Did you mean plan.yaml?"),
        ("plan --config paln.yaml -o z", "Did you mean plan.yaml?"),
        ("info plan.yml", "Did you mean plan.yaml?"),
        ("export --ckpt_path runs/b/version_1/checkpoint/best.ckpt -o z", "runs/b/version_1/checkpoints/best.ckpt?"),
        ("test --ckpt_path runs/b/version_1/checkpoints/bset.ckpt", "runs/b/version_1/checkpoints/best.ckpt?"),
        (
            "report runs/a",
            "Expected scores_test.csv, or one other table of scores, in runs/a/version_10, found nothing.",
        ),
        ("report runs", "Name one, such as runs/"),
        ("report runs/aa/version_2", "Did you mean runs/a/version_2?"),
        ("compare runs/a runs/a", "in runs/a/version_10, found nothing."),
        ("compare runs runs", "Name one, such as runs/"),
        ("test runs/a/version_10", "Write --ckpt_path runs/a/version_10."),
        ("test --ckpt_path runs/a", "runs/a/version_10 is a folder without checkpoints/best.ckpt."),
        ("test --ckpt_path runs", "Name one, such as runs/"),
        ("export --ckpt_path runs/a -o z", "runs/a/version_10 is a folder without checkpoints/best.ckpt."),
        ("info runs", "Name one, such as runs/"),
    ],
)
def test_wrong_names_and_paths_are_answered_with_the_right_ones(
    words: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("my data/images", "data", "runs/a/version_2", "runs/a/version_10", "runs/b/version_1/checkpoints"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("plan.yaml", "runs/b/version_1/checkpoints/best.ckpt"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(words)) in (1, 2)
    said = capsys.readouterr().err.strip().splitlines()[-1].removeprefix("medseg: ")
    assert remedy in said
    assert is_short(said)


def test_the_list_of_settings_is_that_of_the_parser(parser: TrainerParser) -> None:
    """A setting that the list lacks is taken for a misspelled one where another is called alike."""
    known = {*SETTINGS, *("labels", "seed")}
    missing = [
        name for name in list_options(parser) if name not in known and not name.startswith((*OPEN, "data.labels"))
    ]
    assert missing == []
    options = {option for action in parser._actions for option in action.option_strings}
    early = {
        "data_root",
        "plugins",
        "config",
        "print_config",
        "help",
        "ckpt_path",
        "trainer",
        "model",
        "data",
        "model.labels",
    }
    assert [name for name in SETTINGS if f"--{name}" not in options and name not in early] == []


def make_file_parser(command: str) -> CommandParser:
    made = CommandParser(f"medseg {command}", "")
    importlib.import_module(MODULES[command]).add_arguments(made)
    return made


@pytest.mark.parametrize("command", FILE_COMMANDS)
def test_the_listed_options_of_a_command_are_those_of_its_parser(command: str) -> None:
    actions = make_file_parser(command)._actions
    assert {action.dest for action in actions if action.option_strings} - {"help"} == set(OWN[command])


NEEDED = {
    "fit": "--config configs/experiment/demo.yaml",
    "crossval": "--config configs/experiment/demo.yaml",
    "tune": "--config configs/experiment/demo.yaml --space configs/sweeps/model.yaml",
    "validate": "--ckpt_path best",
    "test": "--ckpt_path best",
    "predict": "--ckpt_path best --input configs --output masks",
}


@pytest.mark.parametrize("command", OWN)
def test_an_option_of_another_command_is_answered_with_that_command(command: str) -> None:
    known = {*OWN[command], *(SETTINGS if command in NEEDED else ())}
    for name in sorted({each for names in OWN.values() for each in names} - known):
        with pytest.raises(SettingError) as caught:
            if command in NEEDED:
                check_arguments(command, [*NEEDED[command].split(), f"--{name}", "1"])
            else:
                raise SettingError(make_file_parser(command)._describe_unrecognized([f"--{name}"]))
        assert is_short(str(caught.value))
        owners = [other for other, names in OWN.items() if name in names or (other == "fit" and name in SETTINGS)]
        named = any(f"belongs to medseg {other}" in str(caught.value) for other in owners)
        # Some are a setting of a training under another name.
        assert named or (command in NEEDED and ". Use --" in str(caught.value)), caught.value


def test_an_option_that_is_given_twice_is_named_once() -> None:
    with pytest.raises(SettingError) as caught:
        check_arguments("fit", [*NEEDED["fit"].split(), "-o", "x", "--output", "y"])
    assert str(caught.value).count("has no --output") == 1


def test_other_names_are_not_settings_themselves() -> None:
    assert [name for name in OTHER_SETTINGS if name in SETTINGS] == []


@pytest.mark.parametrize("command", help_pages.COMMANDS)
def test_help_fits_on_one_screen(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80
    named = [word for line in lines for word in line.split() if word.startswith("--")]
    assert len(named) >= 10


@pytest.mark.parametrize(("command", "least"), [("fit", 20), ("crossval", 10), ("tune", 10)])
def test_the_help_of_a_training_names_settings_that_exist(command: str, least: int) -> None:
    settings = [line.split()[0] for line in help_pages.COMMANDS[command].splitlines() if line.startswith("  --")]
    assert len(settings) >= least
    assert {f"--{name}" for name in OWN[command]} <= set(settings)
    for setting in settings:
        name = setting.removeprefix("--").removesuffix(".help")
        assert name in (*SETTINGS, *OWN[command]) or name.startswith(OPEN), setting


@pytest.mark.parametrize("module", [crossval, tune])
def test_the_options_of_repeated_trainings_are_those_of_their_parsers(module: ModuleType) -> None:
    parser = EarlyParser()
    module.add_arguments(parser)
    assert {action.dest for action in parser._actions} == set(OWN[module.__name__.rpartition(".")[2]])


def test_the_help_of_a_class_needs_no_configuration() -> None:
    check_arguments("fit", ["--model.network.help", "segmentation_models_pytorch.Unet"])
    with pytest.raises(SettingError, match="needs --config"):
        check_arguments("fit", ["--model.network.encoder_name", "resnet18"])


def test_the_help_of_predict_begins_with_its_own_options() -> None:
    page = help_pages.COMMANDS["predict"]
    assert page.index("--input") < page.index("--output") < page.index("--model.tta")
    assert Path("docs/settings.md").name in page


@pytest.mark.parametrize("option", ["-o", "--output"])
def test_results_of_other_images_are_refused_before_a_model_is_loaded(option: str, tmp_path: Path) -> None:
    arguments = ["--ckpt_path", "best.ckpt", "--input", str(tmp_path), option, f"{tmp_path}_masks"]
    check_arguments("predict", arguments)
    own = Path(f"{tmp_path}_masks", ".medseg")
    own.mkdir(parents=True)
    check_arguments("predict", arguments)  # begun, and ended before anything was written
    (own / "record.json").write_text(json.dumps({"input": str(tmp_path)}))
    check_arguments("predict", arguments)
    for kept in (json.dumps({"input": "elsewhere"}), "[]", '{"input": '):  # the last two are damaged
        (own / "record.json").write_text(kept)
        with pytest.raises(OutputExistsError, match="holds results of other inputs"):
            check_arguments("predict", arguments)
    (own / "record.json").rename(own.parent / "notes.txt")
    with pytest.raises(OutputExistsError, match="is not empty"):
        check_arguments("predict", arguments)
