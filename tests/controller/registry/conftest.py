"""A real MLflow store, and models of it that are asked as a server asks them."""

import importlib
import warnings

import pytest


@pytest.fixture(scope="session")
def registry_uri(tmp_path_factory):
    """One migrated SQLite store: making it takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"


@pytest.fixture
def load_served(registry_uri, monkeypatch):
    """Returns a loader of a registered model by its address, which may unpickle nothing."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry_uri)

    def load(address, flavour="pyfunc"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow warns of its own type hints as it is imported.
            module = importlib.import_module(f"mlflow.{flavour}")
            return module.load_model(address)

    return load
