"""A password reaches the study's process, and nothing that is pickled or printed."""

import pickle
import stat

import pytest

from controller.sealed_url import SealedUrl, SealedUrlError, sealed

URL = "postgresql+psycopg://me:pa%40ss@db.example.org/x?sslmode=require"


@pytest.mark.parametrize("url", [URL, "postgresql://me@db/x?password=pa%40ss"])
def test_what_is_pickled_has_no_password_and_opens_with_it(url):
    with sealed(url) as handed:
        written = pickle.dumps(handed)
        assert b"ss@" not in written
        assert b"pa%40ss" not in written
        assert "pa%40ss" not in repr(handed)
        assert stat.S_IMODE(handed.password_file.stat().st_mode) == 0o600
        assert pickle.loads(written).open() == url
    assert not handed.password_file.exists()
    with pytest.raises(SealedUrlError, match="same user"):
        handed.open()


@pytest.mark.parametrize("url", ["sqlite:////data/x.db", "postgresql://me@db/x", "no url"])
def test_what_has_no_password_is_handed_as_it_is(url):
    with sealed(url) as handed:
        assert handed == SealedUrl(public=url)
        assert handed.open() == url
