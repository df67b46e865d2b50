"""How far two ways to the same log-probability may be apart, by dtype of the products.

Everything that is not here must be the same bits, or the same tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Limit(NamedTuple):
    """Of the absolute differences: the largest, and their mean."""

    worst: float
    mean: float


# Of one token's log p, in natural units. Below -10 in proportion to it: the logits that it is a
# difference of are as large, and so are their roundings.
LOGPROB: dict[torch.dtype, Limit] = {
    # The promise of the sampler. Sums of the same products in another order, carried through every
    # layer: 2e-5 at most on 2 layers, 4e-5 on 24, and 8e-5 under guidance 3 on pictures such as the
    # model has never seen; on average a tenth of that.
    torch.float32: Limit(1e-4, 2e-5),
    # Every layer rounds to 8 bits, and where two sums differ in the last bit of float32 a rounding
    # falls the other way: 0.15 and 0.03 on average on two random layers, 0.5 and 0.13 on 24, each
    # under guidance 3. What is grossly wrong is found, one position off say; float32 is the test.
    torch.bfloat16: Limit(1.5, 0.25),
    # The same with 11 bits: 0.08 and 0.018 on 24 layers.
    torch.float16: Limit(0.2, 0.04),
}
UNLIKELY = 10.0

# Of a gradient, as a part of the largest in its tensor: a layer computed twice gives the same bits
# but where threads or kernels add up in another order.
GRADIENT: dict[torch.dtype, float] = {
    torch.float32: 1e-4,
    torch.bfloat16: 2e-2,
    torch.float16: 5e-3,
}

# Of a picture's codes, the part that may be others in another batch: where two are equally near but
# for rounding. (One of 48 on the embedded model in bfloat16; none in float32.)
OTHER_CODES: dict[torch.dtype, float] = {
    torch.float32: 0.02,
    torch.bfloat16: 0.1,
    torch.float16: 0.1,
}
