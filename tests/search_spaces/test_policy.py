"""Policies: canonical JSON, digest, and what is refused."""

import json
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.policy import Choice, Policy, PolicyError

CHOICES = st.builds(Choice, st.integers(0, 5000), st.sampled_from(["fp32", "w8a8", "w4", "w4g128"]))
POLICIES = st.dictionaries(st.text(min_size=1, max_size=20), CHOICES, max_size=12).map(Policy)


@given(POLICIES)
def test_json_round_trip(policy: Policy) -> None:
    again = Policy.from_json(policy.to_json())
    assert again == policy
    assert again.to_json() == policy.to_json()
    assert again.digest == policy.digest
    assert pickle.loads(pickle.dumps(policy)) == policy


@given(POLICIES, st.randoms(use_true_random=False))
def test_order_carries_no_meaning(policy: Policy, generator: random.Random) -> None:
    items = list(policy.choices.items())
    generator.shuffle(items)
    shuffled = Policy(dict(items))
    assert (shuffled, hash(shuffled), shuffled.digest) == (policy, hash(policy), policy.digest)


@given(POLICIES, POLICIES)
def test_digests_are_equal_exactly_for_equal_policies(one: Policy, other: Policy) -> None:
    assert (one.digest == other.digest) == (one == other)


def test_digest_is_stable_across_releases() -> None:
    policy = Policy({"layer.1.feed_forward": Choice(0, "fp32"), "layer.0.attention": Choice(3, "w8a8")})
    assert policy.to_json() == (
        '{"choices":{"layer.0.attention":{"format":"w8a8","keep":3},'
        '"layer.1.feed_forward":{"format":"fp32","keep":0}},"schema_version":1}'
    )
    assert policy.digest == "1c70e2f7632d794f"


def test_replace_changes_some_units_and_refuses_unknown_ones() -> None:
    policy = Policy({"a": Choice(1, "fp32"), "b": Choice(2, "fp32")})
    assert policy.replace(a=Choice(0, "fp32")) == Policy({"a": Choice(0, "fp32"), "b": Choice(2, "fp32")})
    assert policy["a"] == Choice(1, "fp32")
    with pytest.raises(PolicyError, match=r"no units \['c'\]"):
        policy.replace(c=Choice(0, "fp32"))


def test_a_policy_does_not_follow_the_mapping_it_was_made_from() -> None:
    choices = {"a": Choice(1, "fp32")}
    policy = Policy(choices)
    choices["a"] = Choice(2, "fp32")
    assert policy["a"].keep == 1
    with pytest.raises(TypeError, match="does not support item assignment"):
        policy.choices["a"] = Choice(3, "fp32")  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one JSON object"),
        ("[" * 100_000, "one JSON object"),
        ("[]", 'the keys "choices" and "schema_version"'),
        ('{"choices":{}}', 'the keys "choices" and "schema_version"'),
        ('{"choices":{},"schema_version":1,"more":1}', 'the keys "choices" and "schema_version"'),
        ('{"choices":{},"schema_version":2}', "schema_version 1; got 2"),
        ('{"choices":[],"schema_version":1}', "maps units to choices"),
        ('{"choices":{"u":3},"schema_version":1}', "got 3 for unit 'u'"),
        ('{"choices":{"u":{"keep":1}},"schema_version":1}', 'the keys "keep" and "format"'),
        ('{"choices":{"u":{"keep":-1,"format":"w4"}},"schema_version":1}', "0 or more; got -1 for unit 'u'"),
        ('{"choices":{"u":{"keep":true,"format":"w4"}},"schema_version":1}', "got True for unit 'u'"),
        ('{"choices":{"u":{"keep":1.0,"format":"w4"}},"schema_version":1}', r"got 1\.0 for unit 'u'"),
        ('{"choices":{"u":{"keep":1,"format":4}},"schema_version":1}', "format is a name; got 4"),
    ],
)
def test_malformed_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy.from_json(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_other_json_is_refused_with_the_own_error(body: object) -> None:
    with pytest.raises(PolicyError, match="a policy has the keys"):
        Policy.from_json(json.dumps(body))
