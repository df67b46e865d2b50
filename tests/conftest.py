"""What every test shares: the repository on the path, and bounded, repeatable hypothesis runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent
if str(ROOT) not in sys.path:  # `pytest` alone does not add it; `python -m pytest` does
    sys.path.insert(0, str(ROOT))

# A fixture that picks a backend is the same for all examples of a test: sharing it is no mistake.
shared = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
settings.register_profile("ci", max_examples=20, derandomize=True, **shared)
settings.register_profile("thorough", max_examples=500, print_blob=True, **shared)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test leaves in the environment ends with it: peft's BOFT leaves CXX=gcc, by which the
    C++ tests, in the same process, would be linked.
    """
    with patch.dict(os.environ):
        yield
