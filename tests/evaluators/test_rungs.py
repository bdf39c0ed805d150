"""Rungs are nested, random and the same for everybody; a score that goes on from a rung is the whole score."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.quality import QualityEvaluator, kl_divergence
from evaluators.rungs import SHARES, rung_of, rung_order, rung_share, rung_sizes, segments
from evaluators.tasks import TASKS, Example, Task


@given(st.integers(1, 5000))
def test_rungs_are_nested_and_hold_every_example_once(examples: int) -> None:
    sizes, parts = rung_sizes(examples), segments(examples)
    assert sizes[-1] == examples
    assert sorted(row for part in parts for row in part) == list(range(examples))
    assert [sum(len(part) for part in parts[: r + 1]) for r in range(len(parts))] == list(sizes)
    assert len(parts) == 1 or min(len(part) for part in parts) >= 8
    assert tuple(row for part in parts for row in part) == rung_order(examples)
    for rung, size in enumerate(sizes):
        assert rung_share(rung, examples) == size / examples
        assert rung_of(size, examples) == (None if size == examples else rung)
    assert rung_share(99, examples) == 1


@pytest.mark.parametrize(
    ("examples", "sizes"),
    [
        (400, (25, 50, 100, 200, 400)),
        (128, (8, 16, 32, 64, 128)),
        (127, (8, 16, 32, 64, 127)),
        (64, (8, 16, 32, 64)),
        (20, (10, 20)),
        (15, (15,)),
        (1, (1,)),
    ],
)
def test_sizes_by_hand(examples: int, sizes: tuple[int, ...]) -> None:
    assert rung_sizes(examples) == sizes


def test_a_large_split_has_the_nominal_shares() -> None:
    assert [rung_share(rung) for rung in range(6)] == [*SHARES, 1.0]
    assert [rung_share(rung, 1600) for rung in range(6)] == [*SHARES, 1.0]


def test_a_number_of_examples_that_no_rung_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of \(25, 50, 100, 200, 400\); got 26"):
        rung_of(26, 400)


def task() -> Task:
    class Config:
        pad_token_id = 0

    return TASKS.get("text-classification")(None, Config())


def examples(count: int) -> list[Example]:
    """Rows of different lengths that begin with their own number."""
    return [
        Example(inputs={"input_ids": torch.tensor([row + 1] * (1 + row % 5))}, label=row % 3, length=1 + row % 5)
        for row in range(count)
    ]


WEIGHTS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


def forward(inputs: Mapping[str, torch.Tensor], _: int) -> torch.Tensor:
    """A model whose outputs depend on the whole call, as dynamic activations do."""
    ids = inputs["input_ids"]
    features = torch.stack([torch.sin(ids[:, 0] * (power + 1.0)) for power in range(8)], 1)
    return features @ WEIGHTS + ids.float().mean() / 100


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 150), st.integers(1, 9))
def test_going_on_from_a_rung_gives_the_bits_of_the_whole_score(count: int, batch: int) -> None:
    evaluator = QualityEvaluator(task(), examples(count), batch=batch)
    whole = evaluator.run(forward)
    one_pass = evaluator.start(forward)
    for rung, size in enumerate(rung_sizes(count)):
        assert not one_pass.finished
        one_pass.reach(rung)
        partial = evaluator.run(forward, rung)
        assert int(one_pass.is_done_N.sum()) == len(partial.per_example_N) == size
        order = range(count) if size == count else rung_order(count)[:size]
        assert one_pass.outputs(rung).per_example_N.equal(whole.per_example_N[list(order)])
        assert one_pass.outputs(rung).logits_MC.equal(partial.logits_MC)
    assert one_pass.finished
    for rung in range(len(rung_sizes(count))):
        assert one_pass.outputs(rung).logits_MC.equal(evaluator.run(forward, rung).logits_MC)
    assert partial.per_example_N.equal(whole.per_example_N)
    assert partial.logits_MC.equal(whole.logits_MC)


@settings(deadline=None, max_examples=15)
@given(st.integers(16, 150), st.integers(1, 9), st.integers(0, 3))
def test_the_difficult_first_gives_the_bits_of_the_whole_score(count: int, batch: int, seed: int) -> None:
    difficulty = torch.rand(count, generator=torch.Generator().manual_seed(seed)).tolist()
    evaluator = QualityEvaluator(task(), examples(count), batch=batch, difficulty=difficulty)
    whole, plain = evaluator.run(forward), QualityEvaluator(task(), examples(count), batch=batch)
    one_pass = evaluator.start(forward)
    one_pass.reach(0)
    while not one_pass.finished:
        one_pass.step()
    found = one_pass.outputs(evaluator.rungs - 1)
    assert found.per_example_N.equal(whole.per_example_N)
    assert found.logits_MC.equal(whole.logits_MC)
    assert one_pass.outputs(0).logits_MC.equal(evaluator.run(forward, 0).logits_MC)
    # The calls are those of an evaluator that knows of no difficulty; only what is computed together differs.
    assert sorted(_calls(evaluator)) == sorted(_calls(plain))
    torch.testing.assert_close(plain.run(one_by_one).logits_MC, evaluator.run(one_by_one).logits_MC)


def _calls(evaluator: QualityEvaluator) -> list[tuple[int, ...]]:
    return [
        call.rows[start : start + call.examples_per_call]
        for call in evaluator.calls
        for start in range(0, len(call.rows), call.examples_per_call)
    ]


def one_by_one(inputs: Mapping[str, torch.Tensor], size: int) -> torch.Tensor:
    """The model as a target runs it: stacked calls know nothing of each other."""
    return torch.cat([forward({"input_ids": part}, size) for part in inputs["input_ids"].split(size)])


def test_steps_go_from_the_difficult_to_the_easy() -> None:
    difficulty = [float(row % 20) for row in range(100)]
    evaluator = QualityEvaluator(task(), examples(100), batch=1, difficulty=difficulty)
    one_pass = evaluator.start(forward)
    one_pass.reach(0)
    means, before = [], one_pass.is_done_N.clone()
    while not one_pass.finished:
        one_pass.step()
        rows = (one_pass.is_done_N & ~before).nonzero().flatten().tolist()
        before = one_pass.is_done_N.clone()
        means.append(sum(difficulty[row] for row in rows) / len(rows))
    assert means == sorted(means, reverse=True)


def test_difficulty_is_the_loss_of_the_dense_model() -> None:
    evaluator = QualityEvaluator(task(), examples(40), batch=3)
    dense = evaluator.run(forward)
    labels = torch.tensor([row % 3 for row in range(40)])
    expected = -torch.log_softmax(dense.logits_MC.double(), -1)[torch.arange(40), labels]
    assert evaluator.difficulty_of(dense) == pytest.approx(expected.tolist())
    few = QualityEvaluator(task(), examples(40), batch=3, kept_bytes=5 * 3 * 4)
    known = few.difficulty_of(few.run(forward))
    kept = rung_order(40)[:5]
    assert [known[row] for row in kept] == pytest.approx([float(expected[row]) for row in kept])
    assert sum(loss != 0 for loss in known) == 5


def test_the_examples_of_a_rung_do_not_depend_on_the_batch() -> None:
    seen = []
    for batch in (1, 7):
        rows: set[int] = set()

        def note(inputs: Mapping[str, torch.Tensor], size: int, rows: set[int] = rows) -> torch.Tensor:
            rows |= set((inputs["input_ids"][:, 0] - 1).tolist())
            return forward(inputs, size)

        QualityEvaluator(task(), examples(100), batch=batch).run(note, 1)
        seen.append(rows)
    assert seen[0] == seen[1] == set(rung_order(100)[: rung_sizes(100)[1]])


def other(inputs: Mapping[str, torch.Tensor], size: int) -> torch.Tensor:
    return forward(inputs, size) * 0.5 + 0.1 * inputs["input_ids"][:, :1]


def test_divergence_on_a_rung_is_over_its_examples() -> None:
    evaluator = QualityEvaluator(task(), examples(100), batch=1)
    dense, mine = evaluator.run(forward), evaluator.run(other)
    evaluator.set_dense(dense)
    for rung, size in enumerate(rung_sizes(100)[:-1]):
        quality = evaluator.evaluate(other, rung)
        rows = sorted(rung_order(100)[:size])
        assert quality.kl_to_dense == pytest.approx(kl_divergence(dense.logits_MC[rows], mine.logits_MC[rows]))
        assert quality.value == pytest.approx(float(mine.per_example_N[rows].mean()))
        assert quality.per_example == tuple(mine.per_example_N[list(rung_order(100)[:size])].tolist())
        assert (quality.rung, quality.share) == (rung, size / 100)
    whole = evaluator.evaluate(other)
    assert evaluator.evaluate(other, 99).per_example == whole.per_example == tuple(mine.per_example_N.tolist())
    assert (whole.rung, whole.share) == (None, 1.0)


def test_divergence_on_a_rung_where_not_all_logits_are_kept() -> None:
    evaluator = QualityEvaluator(task(), examples(100), batch=1, kept_bytes=5 * 3 * 4)
    dense, mine = evaluator.run(forward), evaluator.run(other)
    evaluator.set_dense(dense)
    assert len(dense.logits_MC) == 5
    # The kept examples are the first in rung order, so the first rung has them all.
    expected = kl_divergence(dense.logits_MC, mine.logits_MC)
    assert [evaluator.evaluate(other, rung).kl_to_dense for rung in range(4)] == [pytest.approx(expected)] * 4
