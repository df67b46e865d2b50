"""Drawing tokens from a model, one step at a time, in either direction.

What the tokens are worth is not known here.
"""
