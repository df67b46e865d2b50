"""How much a forward may keep for its backward on a GPU: one number for the process."""

from __future__ import annotations

# Read once by each forward; a torch.compile'd function is compiled again for another number.
kept_bytes = 512 * 2**20


def set_workspace(bytes: int) -> None:
    """How much GPU memory each forward from hidden states may keep for its backward; 0: nothing.

    Of 16-bit inputs one of which needs a gradient, `linear_logprob` and all that stands on it keep
    the exponentials of their logits in 16 bits, 2 V bytes a token and 3% more, for as many tokens
    as fit: their backward takes two products and not three. Log-probabilities keep their bits and
    gradients their accuracy, but that of a bias, which is right to 2^-11 of its terms. The memory
    is free again with the graph of that call. 512 MiB at first; for the whole process, from the
    next forward on. Nothing is kept where the head goes by tiles (float32, compute capability 10)
    or by mma.sync on a card with less than 163 KiB of shared memory a block (8.6, 8.9, 12); the CPU
    keeps its 24 MiB whatever is set here.

    Raises:
        TypeError: not an integer.
        ValueError: below 0.
    """
    global kept_bytes
    if not isinstance(bytes, int) or isinstance(bytes, bool):
        raise TypeError(f"set_workspace takes a number of bytes, got {bytes!r}")
    if bytes < 0:
        raise ValueError(f"set_workspace takes a number of bytes from 0 on, got {bytes}")
    kept_bytes = bytes
