"""Backends of the operators: the reference, this processor's instruction sets, emulated CUDA."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import suder_ext
from tests.ops.backends import BACKENDS, ISAS, use_backend
from tests.ops.emulated import EMULATED


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on the reference, then on every instruction set."""
    with use_backend(request.param):
        yield request.param


NOTHING = [pytest.param("none", marks=pytest.mark.skip("nothing compiled"))]


@pytest.fixture(params=[*ISAS, *EMULATED] or NOTHING)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on every compiled backend: for promises that the reference does not make."""
    with use_backend(request.param):
        yield request.param


@pytest.fixture
def fastest() -> str:
    """The instruction set that runs by default; skips where nothing is compiled."""
    if not ISAS:
        pytest.skip("nothing compiled")
    return str(suder_ext.build_info()["isa"])


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A test may change the number of threads; the next one starts from one again."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


# What emulated CUDA does otherwise, or has no part in. The values are prefixes of test ids.
NOT_EMULATED = {
    "compares instruction sets and numbers of threads": (
        "test_determinism.py::test_any_number_of_threads",
        "test_linear_kl.py::test_any_number_of_threads_and_of_kept_logits",
        "test_linear_preference.py::test_same_bits_for_any_number_of_threads",
        "test_logprob_traps.py::test_same_bits_for_any_number_of_threads",
        "test_logprob_traps.py::test_instruction_sets_agree",
        "test_policy_loss.py::test_same_bits_for_any_instruction_set_and_threads",
        "test_preference_loss.py::test_same_bits_for_any_instruction_set_and_threads",
        "test_sequence_reduce.py::test_a_sequence_has_the_same_bits_anywhere",
    ),
    "CUDA does not look at targets and offsets: tests/ops/test_cuda.py": (
        "test_logprob_traps.py::test_target_outside_the_vocabulary",
        "test_errors.py::test_a_target_outside_the_vocabulary_names_the_first_row",
        "test_errors.py::test_the_row_is_counted_in_the_flattened_batch",
        "test_errors.py::test_wrong_offsets",
        "test_errors.py::test_nothing_is_read_past_a_wrong_offset",
        "test_sequence_reduce.py::test_bad_offsets",
        "test_policy_loss.py::test_bad_cu_seqlens",
    ),
    "on CUDA pairs do not go in chunks, which keep float32 gradients": (
        "test_linear_preference.py::test_a_loss_scale_comes_before_the_rounding",
    ),
    "the emulator's matrix products are torch's, which look at the layout": (
        "test_linear_kl.py::test_layouts_give_the_same_bits",
        "test_linear_logprob.py::test_layouts_give_the_same_bits",
    ),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, with the reason, what the table above lists."""
    for item in items:
        name = item.nodeid.rpartition("/")[2]
        for reason, tests in NOT_EMULATED.items():
            if ("[emulated" in name or "-emulated" in name) and name.startswith(tests):
                item.add_marker(pytest.mark.skip(reason=reason))
