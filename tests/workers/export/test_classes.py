"""The report class by class, against scikit-learn's."""

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from workers.export.classes import class_report


def test_figures_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    labels, answers = generator.integers(0, 4, 200), generator.integers(0, 4, 200)
    found = class_report(labels, answers, ["a", "b", "c", "d"])
    np.testing.assert_array_equal(np.array(found.confusion), confusion_matrix(labels, answers))
    expected = precision_recall_fscore_support(labels, answers)
    figures = [(one.precision, one.recall, one.f1, one.support) for one in found.classes]
    np.testing.assert_allclose(np.array(figures).T, expected)


def test_a_class_that_nobody_names_and_one_without_examples_have_zeros():
    found = class_report(np.array([0, 0, 1]), np.array([0, 2, 0]), ["a", "b", "c"])
    assert (found.classes[1].precision, found.classes[1].recall, found.classes[1].f1) == (0.0, 0.0, 0.0)
    assert (found.classes[2].recall, found.classes[2].support) == (0.0, 0)
    assert found.confusion == ((1, 0, 1), (1, 0, 0), (0, 0, 0))
