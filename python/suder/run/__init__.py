"""A run in a folder: rounds of phases, what learns in them, and what watches and logs them.

Nothing here may be asked about one model family or know a formula of the method.
"""
