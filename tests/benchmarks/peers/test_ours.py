"""Which members of a front are exported."""

from types import SimpleNamespace

from benchmarks.peers.ours import Durations, spread


def row(number):
    return SimpleNamespace(trial=number, quality=number / 10)


def test_members_are_spread_along_the_front_with_both_ends():
    front = [row(number) for number in range(10)]
    assert [each.trial for each in spread(front, 4)] == [0, 3, 6, 9]


def test_a_short_front_is_taken_whole():
    front = [row(number) for number in range(3)]
    assert spread(front, 5) == spread(front, None) == front


def test_one_member_is_the_most_accurate():
    assert spread([row(3), row(5), row(4)], 1)[0].trial == 5


def test_durations_are_known_to_a_later_run(tmp_path):
    Durations(tmp_path / "a" / "durations.json").keep("search", 12.34)
    found = Durations(tmp_path / "a" / "durations.json")
    assert found["search"] == 12.3
    assert "trial 1" not in found
