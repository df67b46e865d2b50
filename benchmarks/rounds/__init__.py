"""A round of the trainer on a model of a published shape: phases, and what limits each."""
