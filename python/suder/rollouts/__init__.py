"""Candidates as data: a table with a row for each, in files that everybody reads, pairs of them."""
