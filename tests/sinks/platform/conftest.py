from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sinks.platform.surroundings import Platform, a_platform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with a_platform() as platform:
        yield platform
