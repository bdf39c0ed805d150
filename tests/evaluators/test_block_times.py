"""Times up to a block, against operators that are counted by hand."""

from dataclasses import replace

import pytest

from evaluators.latency.block_times import block_times, exit_head_operator
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import load_table
from evaluators.latency.workload import Operator, OperatorKind, Workload, unit_operators
from search_spaces.policy import Choice, Policy
from workers.model import load_structure

KEPT = {"layer.0.attention": 3, "layer.0.feed_forward": 0, "layer.1.attention": 2, "layer.1.feed_forward": 48}


@pytest.fixture(params=["tiny_text", "tiny_image"])
def case(request):
    job = request.getfixturevalue(request.param)
    structure = load_structure(job.model)
    workload = Workload(batch=1, sequence_length=structure.tokens or job.sequence_length)
    policy = Policy({u.name: Choice(KEPT.get(u.name, u.groups), "fp32") for u in structure.units})
    return structure, policy, LatencyPredictor(load_table(job.table), workload)


def norms(predictor, count):
    tokens = predictor.workload.tokens
    operator = Operator.of(OperatorKind.LAYER_NORM, tokens=tokens, features=32)
    return count * predictor.operators_ms([(operator, 1)])


def units(structure, policy, predictor, layer):
    found = [u for u in structure.units if u.name.startswith(layer)]
    return sum(predictor.operators_ms(unit_operators(u, policy[u.name], predictor.workload).items()) for u in found)


def test_each_block_adds_its_units_and_its_normalisations(case):
    """Two of the stream in each block, unless each is a branch's own and counts with its unit."""
    structure, policy, predictor = case
    of_stream = 0 if structure.normalizes_first else 2
    times = block_times(structure, policy, predictor)
    embeddings, first, second = structure.stacks[0]
    assert list(times.until_ms) == [embeddings, first, second]
    for before, block, layer in ((embeddings, first, "layer.0"), (first, second, "layer.1")):
        wanted = units(structure, policy, predictor, layer) + norms(predictor, of_stream)
        assert times.until_ms[block] - times.until_ms[before] == pytest.approx(wanted)


def test_what_is_left_of_the_whole_is_its_head(case):
    structure, policy, predictor = case
    times = block_times(structure, policy, predictor)
    assert times.whole_ms == predictor.policy_ms(structure, policy)
    heads = [part.width for part in structure.fixed if part.kind == "linear"]
    wanted = sum(
        predictor.operators_ms([(exit_head_operator(predictor.workload, features=i, classes=o), 1)]) for i, o in heads
    )
    # A final normalisation stands behind the last block where branches normalise their input.
    wanted += norms(predictor, 1) if structure.normalizes_first else 0.0
    assert times.whole_ms - times.until_ms[structure.stacks[0][-1]] == pytest.approx(wanted)


def test_models_of_other_forms_are_refused(case):
    structure, policy, predictor = case
    with pytest.raises(ValueError, match=r"one stack of blocks; \w+ has 0"):
        block_times(replace(structure, stacks=()), policy, predictor)
    with pytest.raises(ValueError, match=r"need all units inside of blocks; .*\.1\..* lies outside"):
        block_times(replace(structure, stacks=(structure.stacks[0][:2],)), policy, predictor)
