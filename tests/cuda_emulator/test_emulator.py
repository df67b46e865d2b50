"""Runs the emulator's own tests, built by `make emulated`: features and planted bugs."""

from __future__ import annotations

import subprocess

import pytest

from tests.ops.emulated import EMULATED, FOLDER

pytestmark = pytest.mark.skipif(not EMULATED, reason="the emulated kernels are not built")


@pytest.mark.parametrize("name", ["emulator_test", "emulator_test_races"])
def test_emulator(name: str) -> None:
    if not (FOLDER / name).exists():
        pytest.skip(f"{name} is not part of this build")
    done = subprocess.run([FOLDER / name], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("memory", ["dynamic", "static"])
def test_sanitizer_stops_shared_memory_overruns(memory: str) -> None:
    done = subprocess.run([FOLDER / "emulator_test", memory], capture_output=True, text=True)
    sanitized = b"__asan_init" in (FOLDER / "emulator_test").read_bytes()
    if not sanitized:
        pytest.skip("built without sanitizers")
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr or "runtime error" in done.stderr
