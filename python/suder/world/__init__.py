"""Worlds of pictures and what is said about them: shapes that are drawn, digits that were scanned.

Ground floor: imports nothing else of suder, and judges nothing.
"""
