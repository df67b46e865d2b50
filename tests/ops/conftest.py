"""Backends of the operators: the reference, this processor's instruction sets, emulated CUDA."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import suder_ext
from tests.ops.backends import BACKENDS, ISAS, use_backend
from tests.ops.emulated import EMULATED, WAYS, Unasked


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


# Tests that never come to the tensor cores, as none in float32 does: the three ways through the
# linear head are one for them, and it is run once. Prefixes of test ids again.
ONE_WAY = (
    "test_cross_entropy.py",
    "test_drop_ins.py",
    "test_eager.py",
    "test_errors.py",
    "test_group_advantage.py",
    "test_linear_preference.py",
    "test_logprob.py",
    "test_logprob_traps.py",
    "test_loss_extremes.py",
    "test_masked_vocabulary.py::test_logits",
    "test_mixed_dtypes.py",
    "test_padded.py",
    "test_pair_options.py",
    "test_policy_loss.py",
    "test_preference_loss.py",
    "test_sequence_reduce.py",
    "test_torch_integration.py::test_backward_twice_with_retain_graph",
    "test_torch_integration.py::test_default_dtype_changes_nothing",
    "test_torch_integration.py::test_nothing_is_recorded_without_need",
    "test_transforms.py",
)


def _params(item: pytest.Item) -> dict[str, object]:
    return item.callspec.params if hasattr(item, "callspec") else {}


def _way(item: pytest.Item) -> str | None:
    """The emulated backend that the item is on, if it is on one."""
    return next((str(one) for one in _params(item).values() if one in EMULATED), None)


def _goes_one_way(item: pytest.Item) -> bool:
    return _params(item).get("dtype") == torch.float32 or _name(item).startswith(ONE_WAY)


def _name(item: pytest.Item) -> str:
    return item.nodeid.rpartition("/")[2]


@pytest.fixture(autouse=True)
def _ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of one way fails where a kernel asks which of them to go."""
    if _way(request.node) and _goes_one_way(request.node):
        monkeypatch.setitem(WAYS, EMULATED[0], Unasked())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips, with the reason, and leaves out what the tables above list."""
    again = []
    for item in items:
        way = _way(item)
        if way not in (None, *EMULATED[:1]) and _goes_one_way(item):
            again.append(item)
        for reason, tests in NOT_EMULATED.items():
            if way and _name(item).startswith(tests):
                item.add_marker(pytest.mark.skip(reason=reason))
    config.hook.pytest_deselected(items=again)
    left_out = set(again)
    items[:] = [item for item in items if item not in left_out]
