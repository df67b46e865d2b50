"""The user's pictures and texts: the one reader of each, and how a run divides them.

Every command reads through this room; no model is known here.
"""
