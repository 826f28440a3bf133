"""Sources are fetched from the hub of the fetch tests."""

from tests.fetch.hub_fixtures import home, hub  # noqa: F401
