"""A failure of the object store is one line without the store's own text."""

from __future__ import annotations

import pytest

from mvl_assets.runner.user_errors import to_user_facing_error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Failed to resolve region for bucket 'b': AWS Error", "cannot be reached"),
        ("Generic S3 error: Error performing GET http://h/?X-Amz-Signature=secret: 503 SlowDown", "failed a request"),
        ("AWS Error ACCESS_DENIED during ListObjectsV2", "denies access"),
    ],
)
def test_an_error_of_the_store_is_one_line(monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.setenv("MVL_LAKE", "s3://b/lake")
    report = to_user_facing_error(OSError(text))
    assert report is not None and words in report.message and "s3://b/lake" in report.message
    assert report.hint and report.is_fatal and "secret" not in report.message + report.hint


def test_another_error_is_left_to_a_developer() -> None:
    assert to_user_facing_error(KeyError("x")) is None
