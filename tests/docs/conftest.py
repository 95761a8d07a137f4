"""What the handbook's tests share: the surroundings of the end-to-end tests, for the recipes."""

from tests.end_to_end.conftest import world

__all__ = ["world"]
