"""Janus and Janus-Pro: all that is particular to the family, its prompts included."""
