"""What each CUDA kernel has to move and compute, and how long that takes at a card's limits.

Written down before a run (`results/gpu_predictions.txt`) and compared with it after
(`benchmarks/gpu_check.sh` puts both side by side).
"""

from benchmarks.model.cards import CARDS, Card
from benchmarks.model.first_run import calibration
from benchmarks.model.predictions import predictions

__all__ = ["CARDS", "Card", "calibration", "predictions"]
