"""Dual self-rewards in other people's trainers; importable without them."""
