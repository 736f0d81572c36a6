"""Help pages of the program and of the commands that train or use a model: one screen each, printed without imports."""

from __future__ import annotations

PROGRAM = """\
usage: medseg COMMAND [options]

Train 2D and 2.5D segmentation models on medical images.

train and use a model
  fit         train                    --config FILE [any setting]
  crossval    train and score folds    --config FILE [--jobs N] [any setting]
  tune        find the best settings   --config FILE --space FILE [--trials N]
  validate    score validation cases   --ckpt_path FILE [any setting]
  test        score test cases         --ckpt_path FILE [any setting]
  predict     write masks              --ckpt_path FILE --input DIR --output DIR

files in, files out
  check       find faults in data      DIR [--json] [--html FILE]
  compare     compare two runs' scores RUN_A RUN_B [--metric NAME]
  evaluate    score anyone's masks     --reference DIR --prediction DIR -o DIR
  export      a model without torch    --ckpt_path FILE -o DIR
  info        what a file or folder is [PATH] [--json]
  new         a project of your own    DIR [--data_root DIR]
  phantom     make synthetic data      DIR [--layout NAME]
  plan        a configuration for data DIR -o CONFIG
  postprocess how to clean up masks    --ckpt_path FILE -o FILE
  report      a page that shows a run  RUN [RUN ...] [-o FILE]
  review      find doubtful labels     --ckpt_path FILE [FILE ...] -o DIR

for a shell
  completion  what Tab completes       bash|fish|zsh

  medseg COMMAND --help    every option of a command
  medseg --version         the version
  medseg --configs         the folder of the shipped configurations
  --plugins PACKAGE        where models run: code of yours that settings name
  --debug                  with any command: show where an error comes from

exit codes: 0 done, 1 the data or the run failed, 2 wrong use, 75 stopped by
            the cluster (SIGUSR1, SIGTERM) and to be continued, 130 stopped by
            Ctrl-C (129 where the terminal was closed)
"""

_MORE = """\
where the rest is
  --print_config              every setting with its value
  --model.network.help CLASS  what a class takes; the same for other classes
  docs/settings.md            every setting, with its default and meaning
"""

_FIT = """\
usage: medseg fit --config FILE [--config FILE ...] [any setting]

Train a model. A configuration comes from your data, or from blocks:
  medseg plan mydata -o plan.yaml && medseg fit --config plan.yaml
  medseg fit --config configs/data/folder.yaml --data_root mydata \\
      --config configs/model/unet.yaml --config configs/trainer/gpu.yaml
Later files win, options win over files; medseg --configs prints the folder.

settings that people touch                               default
  --data_root DIR                  the data set          of the configuration
  --model.labels.names '[a, b]'    what the masks hold
  --model.labels.task NAME         binary, multiclass or multilabel
  --data.fold N                    fold that is held out 0 (of --data.folds 5)
  --data.split_fractions LIST      shares with a test: '[.6, .2, .2]'
  --data.batch_size N              for each device       8
  --data.samples_per_epoch N       patches an epoch      one for each slice
  --data.num_workers N             loading processes     2
  --model.input_size '[h, w]'      patch size            [256, 256]
  --model.context_slices N         neighbors each side   0
  --model.network CLASS            such as Unet, UnetPlusPlus
  --model.pretrained FILE          weights to start from
  --model.optimizer.lr X           learning rate
  --model.loss CLASS               such as DiceCELoss
  --trainer.max_epochs N           how long              100
  --trainer.max_time DD:HH:MM:SS   how long at most
  --trainer.precision NAME         bf16-mixed, 32-true …
  --trainer.accelerator NAME       cpu or gpu            auto
  --trainer.devices N              how many of them      auto
  --experiment NAME                folder below runs/    default
  --seed_everything N              seed                  0
  --ckpt_path last                 go on with the newest run of the experiment
  --plugins PACKAGE                code of yours that settings name
  --json                           print the run and its scores as JSON

"""

_TEST = """\
usage: medseg {command} --ckpt_path FILE [any setting]

Score the {cases} cases of a checkpoint. It carries all settings; yours win.

options
  --ckpt_path FILE            a checkpoint, a run folder, or best (newest run)
  --data_root DIR             where the data set is now
  --json                      print the summary of scores, and nothing else
  --save_predictions false    keep no masks in the run folder
  --model.tta flips           average over flips of the image
  --model.metrics+=medseg_pl.ObjectMetric    add columns to the scores
  --data.eval_batch_size N    slices at once
  --trainer.accelerator NAME  cpu or gpu
  --plugins PACKAGE           code of yours that the checkpoint names

"""

_PREDICT = """\
usage: medseg predict --ckpt_path FILE [FILE ...] --input DIR --output DIR
                      [any setting]

Write masks for a folder of images, by the models of one or more checkpoints.

options
  --ckpt_path FILE [FILE ...] a checkpoint, a run folder, or best; several are
                              an ensemble; so is ensemble.json of a crossval
  --input DIR                 images in the data set's layout, or one image
  -o, --output DIR            a new folder for the masks
  --probabilities             write the probabilities, too
  --overlays                  draw a picture of each case, too
  --review                    say which cases a person should look at
  --review_top N              how many of them to draw (20)
  --on_foreign NAME           images unlike training: mark, refuse or ignore
  --json                      print which inputs have masks, and nothing else
  --model.tta flips           average over flips of the image
  --data.eval_batch_size N    slices at once
  --trainer.accelerator NAME  cpu or gpu
  --plugins PACKAGE           code of yours that the checkpoint names

"""

_CROSSVAL = """\
usage: medseg crossval --config FILE [--jobs N] [any setting of medseg fit]

Train every fold, and score each case by the model that did not see its
patient. It takes folds × the plan's minutes; the same command goes on where
it was cut off:
  medseg crossval --config plan.yaml --experiment cv

options
  --config FILE               the configuration, as for medseg fit
  --data_root DIR             the data set                 of the configuration
  --experiment NAME           folder below runs/           default
  --data.folds N              how many folds               5
  --jobs N                    how many folds to train at once, each on devices
                              of its own where there are several; default: 1
  --fold K                    train this one and no other, as in an array of
                              jobs; the last one collects the results
  --json                      print the summary of scores, and nothing else
  --trainer.max_time DD:HH:MM:SS    how long each fold takes at most
  --trainer.accelerator NAME  cpu or gpu
  --plugins PACKAGE           code of yours that settings name

"""

_TUNE = """\
usage: medseg tune --config FILE --space FILE [--trials N] [--jobs N]
                   [any setting of medseg fit]

Find the settings with the best validation score. It takes trials × the plan's
minutes at most; the same command goes on where it was cut off:
  medseg tune --config plan.yaml --experiment search \\
      --space configs/sweeps/learning_rate.yaml

options
  --config FILE               the configuration, as for medseg fit
  --space FILE                which settings to vary, as in a W&B sweep
  --data_root DIR             the data set                 of the configuration
  --experiment NAME           folder below runs/           default
  --trials N                  how many in all              20
  --jobs N                    how many trials to train at once, each on devices
                              of its own where there are several; default: 1
  --no_pruning                train each trial to its end, however bad it is
  --json                      print all trials, and nothing else
  --trainer.max_time DD:HH:MM:SS    how long each trial takes at most
  --trainer.accelerator NAME  cpu or gpu
  --plugins PACKAGE           code of yours that settings name

"""

COMMANDS = {
    "fit": _FIT + _MORE,
    "crossval": _CROSSVAL + _MORE,
    "tune": _TUNE + _MORE,
    "validate": _TEST.format(command="validate", cases="validation") + _MORE,
    "test": _TEST.format(command="test", cases="test") + _MORE,
    "predict": _PREDICT + _MORE,
}
