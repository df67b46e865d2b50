"""Attention over a shared prefix and one's own tokens, against plain attention in float64."""

from __future__ import annotations

import pytest
import torch

from suder.models.decoder.cache import KeyValues
from tests.tolerances import TOLERANCES

C, N, H, D, STEPS = 3, 4, 2, 8, 5
LENGTHS = (6, 2, 4)
SCALE = 0.3


def written(dtype, group, steps):
    """A cache after `steps` appended tokens, the query of the last, and what they were."""
    make = torch.Generator().manual_seed(steps)
    past = max(LENGTHS)
    prefix = [torch.randn(C, H, past, D, generator=make) for _ in range(2)]
    own = [torch.randn(C * N, H, steps, D, generator=make) for _ in range(2)]
    query = torch.randn(C * N, H * group, D, generator=make)
    cache = KeyValues(dtype)
    cache.update(*prefix, 0)
    cache.plan(torch.tensor(LENGTHS), N, STEPS)
    cache.make_room()
    for step in range(steps):
        cache.begin()
        cache.append(0, *(part[:, :, step] for part in own))
        cache.written.add_(1)
    return cache, query, prefix, own


def plain(query, prefix, own, rows, round_to):
    """Of each row by itself: its prefix without padding, then its own tokens."""
    seen = []
    for row in rows:
        condition = row // N
        keys, values = (
            torch.cat([shared[condition, :, : LENGTHS[condition]], alone[row]], 1)
            .to(round_to)
            .double()
            for shared, alone in zip(prefix, own, strict=True)
        )
        groups = query[row].to(round_to).double().view(H, -1, D)
        weight = (groups @ keys.mT * SCALE).softmax(-1)
        seen.append((weight @ values).flatten())
    return torch.stack(seen)


@pytest.mark.parametrize("columns", [3, STEPS])
@pytest.mark.parametrize("group", [1, 2])  # queries that share a head's keys
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention(dtype, group, columns):
    cache, query, prefix, own = written(dtype, group, 3)
    cache.look_at(columns)
    expected = plain(query, prefix, own, range(C * N), dtype)
    limits = TOLERANCES["attention", "cpu", dtype]
    torch.testing.assert_close(cache.attend(0, query, SCALE).double(), expected, **limits)


def test_fewer_of_them():
    cache, query, prefix, own = written(torch.float32, 1, 3)
    rows = torch.tensor([1, 3, 8, 11])
    fewer = cache.take(torch.tensor([0, 2]), rows)
    fewer.look_at(STEPS)
    expected = plain(query, prefix, own, rows.tolist(), torch.float32)
    limits = TOLERANCES["attention", "cpu", torch.float32]
    torch.testing.assert_close(fewer.attend(0, query[rows], SCALE).double(), expected, **limits)


def test_what_others_wrote_reaches_nobody():
    """Not through the shared prefix, nor through what is masked."""
    cache, query, _, _ = written(torch.float32, 1, 3)
    cache.look_at(STEPS)
    before = cache.attend(0, query, SCALE)
    for part in cache.own[0]:
        part[5] = 1e3  # another sequence's
        part[:, :, 3:] = 1e3  # not written yet
    after = cache.attend(0, query, SCALE)
    others = torch.arange(C * N) != 5
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[5], after[5])
