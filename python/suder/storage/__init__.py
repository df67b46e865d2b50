"""Files written whole or not at all, states to go on from, seeds.

Ground floor: knows bytes and tensors, not what they mean.
"""
