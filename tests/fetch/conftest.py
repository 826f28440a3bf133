"""`home` and `hub` are also used by the ingest tests."""

from tests.fetch.hub_fixtures import home, hub  # noqa: F401
