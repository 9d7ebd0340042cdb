"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real inputs: `LONGALIGN_TEST_DATA`, else `../shared/data` beside the checkout."""
    if named := os.environ.get("LONGALIGN_TEST_DATA"):
        folder = Path(named)
        assert folder.is_dir(), f"LONGALIGN_TEST_DATA names {folder}, which is not a folder"
        return folder
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no test data: set LONGALIGN_TEST_DATA or put ../shared/data beside the checkout")
    return folder
