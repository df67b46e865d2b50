"""The operators as plain callables: torch.ops.suder.*.default, looked up once."""

from __future__ import annotations

import torch

from suder_ext import _ops_schemas  # noqa: F401  (defines them)

linear_logprob = torch.ops.suder.linear_logprob.default
linear_logprob_backward = torch.ops.suder.linear_logprob_backward.default
logprob = torch.ops.suder.logprob.default
logprob_backward = torch.ops.suder.logprob_backward.default
sequence_reduce = torch.ops.suder.sequence_reduce.default
sequence_reduce_backward = torch.ops.suder.sequence_reduce_backward.default
group_advantage = torch.ops.suder.group_advantage.default
