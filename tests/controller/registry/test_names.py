"""Names of models, aliases, and how a version is called."""

import pytest

from controller.errors import UsageError
from controller.registry.names import Registration, check_alias, check_model_name, parse_model


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("digits", ("digits", "champion", None)),
        ("digits@prod", ("digits", "prod", None)),
        ("digits/12", ("digits", None, "12")),
    ],
)
def test_a_model_is_called_by_alias_or_number(text, parts):
    found = parse_model(text)
    assert (found.name, found.alias, found.version) == parts


@pytest.mark.parametrize("text", ["", "a/b", "a@b@c", "a/1@b", "@prod", "a@", "a/-1", "../a"])
def test_other_texts_are_no_model(text):
    with pytest.raises(UsageError, match=r"a model is a folder|name of a registered model"):
        parse_model(text)


@pytest.mark.parametrize("alias", ["latest", "V7", "", "a b", "x" * 65, "a\n"])
def test_aliases_that_mlflow_reserves_or_refuses(alias):
    with pytest.raises(UsageError, match="an alias has 1 to 64 letters"):
        check_alias(alias)


def test_a_registration_is_checked_as_it_is_made():
    assert Registration().alias == "champion"
    with pytest.raises(UsageError, match="the name of a registered model has"):
        Registration(name="a/b")
    assert check_model_name("a.b-c_1") == "a.b-c_1"
