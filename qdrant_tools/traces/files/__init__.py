"""A file that a tool exported -> its rows, whatever its ending says."""
