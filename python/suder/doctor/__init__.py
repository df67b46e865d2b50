"""A checkpoint on arrival: what is fine with it, what is odd, and what to do.

Stands on `run/`, whose plan tells memory; knows no judge and trains nothing.
"""
