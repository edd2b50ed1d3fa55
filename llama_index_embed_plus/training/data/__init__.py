"""Training data: files and records in, the columns that a loss reads out."""
