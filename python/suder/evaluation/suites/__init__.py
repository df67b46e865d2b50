"""Other people's benchmarks: pictures as their own scorers read them, one suite a file."""
