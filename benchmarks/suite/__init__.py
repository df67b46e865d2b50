"""`python -m benchmarks`: the scripts' questions asked in one run, as a table, files and a page."""
