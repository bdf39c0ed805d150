"""Which members of a front are exported."""

from types import SimpleNamespace

from benchmarks.peers.ours import spread


def row(number):
    return SimpleNamespace(trial=number, quality=number / 10)


def test_members_are_spread_along_the_front_with_both_ends():
    front = [row(number) for number in range(10)]
    assert [each.trial for each in spread(front, 4)] == [0, 3, 6, 9]


def test_a_short_front_is_taken_whole():
    front = [row(number) for number in range(3)]
    assert spread(front, 5) == front


def test_one_member_is_the_most_accurate():
    assert spread([row(3), row(5), row(4)], 1)[0].trial == 5
