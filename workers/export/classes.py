"""Classification class by class: confusion matrix, precision, recall and F1.

Shape letters: N examples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from workers.export.measurement import ClassMeasurement, ClassReport


def class_report(
    labels_N: npt.NDArray[np.int64], answers_N: npt.NDArray[np.int64], names: Sequence[str]
) -> ClassReport:
    """Compare answers with labels.

    Args:
        labels_N: Index of the true class of each example.
        answers_N: Index of the answered class.
        names: Names of the classes, by index.
    """
    count = len(names)
    confusion_CC = np.zeros((count, count), np.int64)
    np.add.at(confusion_CC, (labels_N, answers_N), 1)
    right_C = np.diag(confusion_CC)
    answered_C, support_C = confusion_CC.sum(0), confusion_CC.sum(1)
    return ClassReport(
        classes=tuple(
            ClassMeasurement(
                name=name,
                precision=_share(right_C[index], answered_C[index]),
                recall=_share(right_C[index], support_C[index]),
                f1=_share(2 * right_C[index], answered_C[index] + support_C[index]),
                support=int(support_C[index]),
            )
            for index, name in enumerate(names)
        ),
        confusion=tuple(tuple(row) for row in confusion_CC.tolist()),
    )


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0
