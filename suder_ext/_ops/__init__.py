"""The operators as plain callables: torch.ops.suder.*.default, looked up once."""

from __future__ import annotations

import torch

# The order matters: schemas first, then what is registered for them.
from suder_ext._ops import autograd, composite, cpu, cuda, fakes, schemas  # noqa: F401

linear_logprob = torch.ops.suder.linear_logprob.default
linear_kl = torch.ops.suder.linear_kl.default
logprob = torch.ops.suder.logprob.default
sequence_reduce = torch.ops.suder.sequence_reduce.default
group_advantage = torch.ops.suder.group_advantage.default
sample_token = torch.ops.suder.sample_token.default
linear_sample_token = torch.ops.suder.linear_sample_token.default
preference_loss = torch.ops.suder.preference_loss.default
linear_preference_loss = torch.ops.suder.linear_preference_loss.default
policy_loss = torch.ops.suder.policy_loss.default
