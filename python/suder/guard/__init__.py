"""Keeps a run from ending worse than it began: `watch` measures, `rule` decides. No labels.

Neither may reach the judge of the evaluation, nor change a weight.
"""
