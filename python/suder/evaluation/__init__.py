"""External judgement of a model: captions and pictures, right or wrong, with intervals.

Nothing that trains may import this room; a test walks the import graph.
"""
