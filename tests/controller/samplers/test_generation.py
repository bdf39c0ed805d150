"""A generation: sixteen, then four, then one."""

import pytest

from controller.samplers.generation import OFFSPRING, Generation, Move, Score, best_of

NOTHING: tuple[list[bytes], ...] = ([], [], [])


def score(quality, *, share=1 / 16, divergence=None):
    return Score(quality=quality, divergence=divergence, share=share)


def filled(**changes):
    generation = Generation(number=0, target=0)
    for i in range(OFFSPRING):
        generation.take(0, b"%02d" % i, score(i / 100, **changes))
    return generation


def test_it_asks_for_sixteen_then_the_best_four_then_the_best_one():
    generation = Generation(number=0, target=0)
    for i in range(OFFSPRING):
        assert generation.next_step(NOTHING).move is Move.OFFSPRING
        generation.take(0, b"%02d" % i, score(i / 100))
    for key in (b"15", b"14", b"13", b"12"):
        step = generation.next_step(NOTHING)
        assert (step.move, step.stage, step.key) == (Move.PROMOTE, 1, key)
        generation.take(1, key, score(0.9 if key == b"13" else 0.5, share=1 / 4))
    step = generation.next_step(NOTHING)
    assert (step.move, step.stage, step.key) == (Move.PROMOTE, 2, b"13")
    generation.take(2, b"13", score(0.8, share=1.0))
    assert generation.next_step(NOTHING).move is Move.END


@pytest.mark.parametrize(("fewest", "middle"), [(1 / 16, 2), (0.0625001, 2), (1 / 8, 1), (1 / 4, 1), (1 / 2, 1)])
def test_the_middle_rung_holds_about_a_quarter_of_the_examples(fewest, middle):
    generation = filled(share=fewest)
    assert generation.rung(0) == 0
    assert generation.rung(1) == middle


def test_what_is_running_counts():
    generation = Generation(number=0, target=0)
    for i in range(OFFSPRING - 2):
        generation.take(0, b"%02d" % i, score(i / 100))
    assert generation.next_step(([b"a"], [], [])).move is Move.OFFSPRING
    assert generation.next_step(([b"a", b"b"], [], [])).move is Move.WAIT
    generation = filled()
    assert generation.next_step(([], [b"15"], [])).key == b"14"
    assert generation.next_step(([], [b"15", b"14", b"13", b"12"], [])).move is Move.WAIT


def test_failures_make_way_and_do_not_come_back():
    generation = filled()
    for key in (b"15", b"14", b"13"):
        generation.take(1, key, None)
    generation.take(1, b"12", score(0.1, share=1 / 4))
    assert generation.next_step(NOTHING).key == b"12"
    generation.take(2, b"12", None)
    assert generation.next_step(NOTHING).move is Move.END


def test_where_everything_is_scored_in_full_four_offspring_are_enough():
    generation = Generation(number=0, target=0)
    for i in range(4):
        assert generation.next_step(NOTHING).move is Move.OFFSPRING
        generation.take(0, b"%02d" % i, score(i / 100, share=1.0))
    assert generation.next_step(NOTHING).move is Move.END


def test_where_all_offspring_fail_one_is_tried_in_full():
    generation = Generation(number=0, target=0)
    for i in range(OFFSPRING):
        generation.take(0, b"%02d" % i, None)
    step = generation.next_step(NOTHING)
    assert (step.move, step.stage, step.key) == (Move.PROMOTE, 2, b"00")
    assert generation.next_step(([], [], [b"00"])).move is Move.WAIT
    generation.take(2, b"00", None)
    assert generation.next_step(NOTHING).move is Move.END


def test_divergence_decides_where_all_have_one():
    pool = {b"a": score(0.5, divergence=0.3), b"b": score(0.5, divergence=0.1), b"c": score(0.6, divergence=0.2)}
    assert best_of(pool, 2) == [b"b", b"c"]
    assert best_of({**pool, b"d": score(0.55)}, 2) == [b"c", b"d"]
