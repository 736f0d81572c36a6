"""Objects: matching and panoptic quality at two thresholds, against panoptica, from the same masks and equal.

Both label the masks, match one to one, and score at IoU > 0 and IoU >= 0.5. panoptica scores one threshold at a time,
so it runs twice; it requires older packages than medseg, so it runs in an environment of its own, where each call is
timed without the time that masks travel there:

    python -m venv panoptica && panoptica/bin/pip install panoptica
    PANOPTICA=panoptica/bin/python python benchmarks/objects.py [results.json]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _report import Claim, finish, list_left_out
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

ROUNDS = 5
THRESHOLDS = (0.0, 0.5)
# Shape, roughness, and the height above which there is an object: few large ones, many small ones.
SCENES = [
    ((1, 256, 256), 3.0, 1.5),
    ((1, 512, 512), 3.0, 1.5),
    ((1, 1024, 1024), 5.0, 2.0),
    ((32, 96, 96), 2.0, 2.0),
    ((96, 160, 160), 4.0, 2.5),
    ((64, 256, 256), 6.0, 2.0),
    ((64, 256, 256), 3.0, 2.0),
]
Mask = NDArray[np.bool_]

WORKER = """
import json, os, sys, time, warnings
warnings.simplefilter("ignore")
said, sys.stdout = sys.stdout, open(os.devnull, "w")
import numpy as np
from panoptica import ConnectedComponentsInstanceApproximator, InputType, Panoptica_Evaluator
from panoptica.instance_matcher import MaxBipartiteMatching
from panoptica.metrics import Metric

evaluators = [
    Panoptica_Evaluator(
        expected_input=InputType.SEMANTIC,
        instance_approximator=ConnectedComponentsInstanceApproximator(),
        instance_matcher=MaxBipartiteMatching(matching_threshold=threshold, strict_threshold=threshold == 0),
        instance_metrics=[Metric.IOU],
        global_metrics=[],
    )
    for threshold in (0.0, 0.5)
]
for line in sys.stdin:
    masks = np.load(line.strip()).astype(np.uint8)
    started = time.perf_counter()
    values = []
    for evaluator in evaluators:
        (result,) = evaluator.evaluate(*masks, verbose=False).values()
        values += [float(getattr(result, name)) for name in ("tp", "fp", "fn", "rq", "sq", "pq")]
    print(json.dumps({"seconds": time.perf_counter() - started, "values": values}), file=said, flush=True)
"""


def draw_masks(shape: tuple[int, int, int], roughness: float, height: float) -> tuple[Mask, Mask]:
    """Draw the hills of a random landscape, and those of one that differs somewhat."""
    rng = np.random.default_rng(0)
    smoothing = (0 if shape[0] == 1 else roughness, roughness, roughness)
    hills, others = (gaussian_filter(rng.normal(size=shape), smoothing) for _ in range(2))
    reference = hills / hills.std()
    return reference + 0.3 * others / others.std() > height, reference > height


def score(prediction: Mask, reference: Mask) -> list[float]:
    from medseg_pl.metrics.functional.matching import match_objects, panoptic_quality, segmentation_quality
    from medseg_pl.metrics.functional.objects import count_overlaps, find_objects
    from medseg_pl.metrics.functional.overlap import dice

    overlaps = count_overlaps(find_objects(reference), find_objects(prediction))
    values: list[float] = []
    for threshold in THRESHOLDS:
        found = match_objects(overlaps, threshold)
        values += [*found.counts, dice(found.counts), segmentation_quality(found), panoptic_quality(found)]
    return values


def measure(panoptica: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    environment = {**os.environ, "PANOPTICA_CITATION_REMINDER": "false"}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([panoptica, "-c", WORKER], env=environment, **pipe) as worker,  # type: ignore[call-overload]
    ):
        for scene in SCENES:
            masks = draw_masks(*scene)
            file = Path(folder, "masks.npy")
            np.save(file, np.stack(masks))
            ours, theirs = [], []
            for number in range(ROUNDS + 1):
                started = time.perf_counter()
                values = score(*masks)
                spent = time.perf_counter() - started
                worker.stdin.write(f"{file}\n")
                worker.stdin.flush()
                answer = json.loads(worker.stdout.readline())
                np.testing.assert_allclose(values, answer["values"], rtol=1e-9)
                if number:
                    ours.append(1e3 * spent)
                    theirs.append(1e3 * answer["seconds"])
            mine, peer = statistics.median(ours), statistics.median(theirs)
            name = "x".join(map(str, scene[0]))
            objects = int(values[0] + values[2])
            rows.append({"shape": name, "objects": objects, "medseg_ms": mine, "panoptica_ms": peer})
            print(f"{name:>14} {objects:5} objects {mine:8.1f} ms {peer:8.1f} ms {peer / mine:6.1f}x")
        worker.stdin.close()
    return rows


def main() -> None:
    panoptica = os.environ.get("PANOPTICA")
    if not panoptica:
        list_left_out("PANOPTICA names no Python with panoptica, which requires older packages than medseg")
        return
    rows = measure(panoptica)
    ratios = [row["panoptica_ms"] / row["medseg_ms"] for row in rows]
    mean, least = statistics.geometric_mean(ratios), min(ratios)
    measured = f"{mean:.0f} times as fast (geometric mean), at least {least:.0f}"
    claim = Claim("object scores", f"panoptica, equal, {len(rows)} shapes", "5 times as fast", measured, least >= 5)
    finish([claim], {"objects": rows}, ["scipy"])


if __name__ == "__main__":
    main()
