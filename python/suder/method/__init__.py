"""The paper: rollouts, dual rewards, selection, objectives, their gradients and their balance.

Tensors and models in, numbers out; no run folder, no log, no model family.
"""
