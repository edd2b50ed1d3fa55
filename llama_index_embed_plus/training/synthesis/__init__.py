"""Training without a log: a collection's own passages -> queries that they answer."""
