"""Other people's trainers on our ops; each module imports its host only when it is called."""
