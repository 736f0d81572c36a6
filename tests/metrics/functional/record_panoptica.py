"""Record what panoptica says of `object_pairs`, for `test_matching.py`.

Its requirements (rich < 14, numpy < 2.3) exclude ours, so it runs in an environment of its own:

    python -m venv panoptica && panoptica/bin/pip install panoptica
    panoptica/bin/python tests/metrics/functional/record_panoptica.py
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

TOTAL = 600
THRESHOLDS = (0.0, 0.5)
FILE = Path(__file__).with_name("panoptica_scores.json")


def score(evaluator: Any, prediction: np.ndarray, reference: np.ndarray) -> list[float | None]:
    (result,) = evaluator.evaluate(prediction.astype(np.uint8), reference.astype(np.uint8), verbose=False).values()
    values = [float(getattr(result, name)) for name in ("tp", "fp", "fn", "rq", "sq", "pq")]
    return [None if math.isnan(value) else float(f"{value:.9g}") for value in values]


def main() -> None:
    from object_pairs import pair
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
        for threshold in THRESHOLDS
    ]
    rows = []
    for number in range(TOTAL):
        drawn = pair(number)
        masks = drawn.prediction, drawn.reference
        digest = zlib.crc32(np.packbits(np.stack(masks)).tobytes())
        # Of three axes it takes neighbors at corners, of two at sides only.
        row = {"digest": digest, "full": [score(evaluator, *masks) for evaluator in evaluators]}
        if len(masks[0]) == 1:
            row["face"] = [score(evaluator, masks[0][0], masks[1][0]) for evaluator in evaluators]
        rows.append(row)
    lines = ",\n".join(json.dumps(row, separators=(",", ":")).replace(".0,", ",").replace(".0]", "]") for row in rows)
    FILE.write_text(f'{{"panoptica": "{version("panoptica")}", "rows": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
