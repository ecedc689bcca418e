"""The command line: what it takes, what it does, and how its errors look."""
