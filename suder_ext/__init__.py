"""suder_ext: exact log-likelihoods, dual self-rewards and preference losses.

Tensors in, tensors out; it knows no model, prompt or image. The kernels take raw pointers, so one
build serves every torch version; without a build, or for float64, the plain PyTorch functions of
`suder_ext.reference` run. `build_info()` tells which.
"""

from suder_ext import functional, reference
from suder_ext._build_info import __version__, build_info
from suder_ext._workspace import set_workspace
from suder_ext.functional import *  # noqa: F403
from suder_ext.types import (
    KtoLoss,
    LogprobStats,
    PolicyLoss,
    PolicyMetrics,
    PreferenceLoss,
    RankedStats,
    Rewards,
    SampledToken,
)

__all__ = [
    *functional.__all__,
    "KtoLoss",
    "LogprobStats",
    "PolicyLoss",
    "PolicyMetrics",
    "PreferenceLoss",
    "RankedStats",
    "Rewards",
    "SampledToken",
    "__version__",
    "build_info",
    "functional",
    "reference",
    "set_workspace",
]
