"""What a user may set, and how it is read from a file and the command line.

Checked values only: nothing here does any work with them.
"""
