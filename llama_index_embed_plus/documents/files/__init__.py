"""Which files are read, by which reader, in which encoding and within which bounds."""
