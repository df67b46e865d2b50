"""The objectives against their controls over seeds and warm starts, as a resumable grid.

It starts runs and has them judged; no run knows of it.
"""
