"""What tests of several rooms share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lxml import etree


@pytest.fixture(scope="session")
def schema() -> etree.XMLSchema:
    """Microsoft's published schemas, where they lie beside the repository."""
    loader = Path(__file__).resolve().parents[1].parent / "shared" / "ews-schema" / "ews_schema.py"
    if not loader.exists():
        pytest.skip("Microsoft's schemas are not part of this repository")
    spec = importlib.util.spec_from_file_location("ews_schema", loader)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded: etree.XMLSchema = module.load()
    return loaded
