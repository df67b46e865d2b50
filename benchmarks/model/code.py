"""What of the kernels' code decides their time: as it was in the first run, and as it is.

What a later kernel changes is worked out from its instructions and bytes and was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernels:
    """What differs between two states of the code."""

    host: float  # seconds of an eager call before its first kernel; measured, later an estimate
    merge_latency: float  # of a part in the merge of row states: loads that wait for one another
    merge: float  # bytes/s of the merge
    logit_instructions: float  # of the forward from logits
    row_instructions: float  # of a block that reads one split of a row, all threads together
    logits_issue: float  # the share of issue slots that these get
    mma_share: float  # of what mma.sync could reach, our main loop's
    most_splits: int  # of a vocabulary
    skew: int  # steps of 64 by which halves of a tile of the wgmma forward are apart
    short_parts_last: bool  # and groups of 64 rows without a token multiply nothing
    kept: float = 0.0  # bytes that a forward may keep for its backward


# The first run: commit ea9eaf4. Its row kernel filled 85% of the issue slots (Nsight); what rows of
# two widths took gives 36 instructions a logit and 200,000 a row, a tree of merges.
FIRST_RUN = Kernels(57e-6, 0.15e-6, 0.4e12, 36, 2.0e5, 0.85, 0.473, 64, 0, False)
# The merge: 8 warps share a row's parts, 8 loads under way each. A logit: 9 in the machine code; a
# row: about 150 of each of 256 threads. The host: what benchmarks/gpu/calls.py measures without a
# GPU (it was 57 on the card's machine). mma.sync: the first run's loop took 4.8 instructions a
# product, and waited for the fragments of each; now it takes 2.3, fragments come a slice ahead, and
# what is left is a barrier a stage, some 80 of 1650 cycles, and an estimate for all else.
NOW = Kernels(20e-6, 0.03e-6, 2.5e12, 9, 4.0e4, 0.75, 0.85, 128, 2, True, kept=512 * 2.0**20)


# Constants of the kernels (suder_ext/_ops/cuda/tiles.py, csrc/cuda/*_mainloop.cuh).
TILE_TOKENS, TILE_VOCAB = 512, 16384
BLOCK_ROWS, BLOCK_COLUMNS, GROUP_ROWS = 128, 256, 64
BARE_ROWS = 64  # of cuBLAS's tiles where the last wave is small, by what 576 rows take
SPLIT_COLUMNS = 65536  # of a row of logits that one block reads
CLUSTER = 2  # blocks of the wgmma forward that share what they load of the weight
DRY = 100 / 1.755e9  # seconds until the tensor cores work again; an estimate
EPILOGUE_INSTRUCTIONS = 8  # an element: seven in the machine code, and what is not unrolled
# Of the fused backward (suder_ext/_ops/cuda/logit_gradients.py). An element: 16 in the machine code
# for the gradient; what adds up a column, rounds, exchanges and stores comes to about 6.
CHUNK_TOKENS, SLICE_COLUMNS = 8192, 16384
GRADIENT_INSTRUCTIONS = 22
# What the forward keeps for it (kept_exps.py): 16 bits an element and 4 bytes for 64 of them. An
# element is scaled, rounded, exchanged and stored. Kept tokens are a multiple of KEPT_ROWS.
KEEP_INSTRUCTIONS, KEPT_ROWS, KEPT_SUM_ROWS = 3, 256, 32
SMALL_LAUNCHES = 15  # of the pairs' losses, both ways
# Drawing a token (suder_ext/_ops/cuda/sampling.py): rows of a product; seconds of two barriers and
# of three further reads, of L2, each of which waits for the one before (an estimate).
DRAW_HEIGHT, DRAW_LATENCY = 128, 4e-6
