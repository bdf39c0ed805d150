"""Where a rollback goes, by the changes that were noted."""

import pytest

from controller.registry.alias_history import AliasHistory, Move


def history(*moves):
    found = AliasHistory()
    for move, version in moves:
        found = found.then(version, move)
    return found


def test_rollbacks_go_back_step_by_step_and_not_to_and_fro():
    forward = [(Move.REGISTERED, "1"), (Move.REGISTERED, "2"), (Move.PROMOTED, "3")]
    assert history(*forward).holders() == ("1", "2", "3")
    assert history(*forward, (Move.ROLLED_BACK, "2")).holders() == ("1", "2")
    assert history(*forward, (Move.ROLLED_BACK, "2"), (Move.ROLLED_BACK, "1")).holders() == ("1",)
    assert history(*forward, (Move.ROLLED_BACK, "2"), (Move.PROMOTED, "3")).holders() == ("1", "2", "3")
    assert history(*forward, (Move.PROMOTED, "3")).holders() == ("1", "2", "3")


def test_what_another_program_did_is_found():
    text = history((Move.REGISTERED, "1")).text()
    assert AliasHistory.read(text, "4").holders() == ("1", "4")
    assert AliasHistory.read(text, "1").holders() == ("1",)
    assert AliasHistory.read(text, None).holders() == ("1",)


@pytest.mark.parametrize(
    "text", [None, "", "{", "[1]", '[{"version": "1"}]', '[{"version": 1, "move": "x", "at": ""}]']
)
def test_a_tag_that_is_no_history_counts_as_none(text):
    assert AliasHistory.read(text, "2").holders() == ("2",)


def test_a_long_history_fits_into_a_tag_by_its_latest_part():
    long = history(*((Move.PROMOTED, str(n)) for n in range(500)))
    assert len(long.text()) <= 5000
    assert AliasHistory.read(long.text(), "499").holders()[-2:] == ("498", "499")
