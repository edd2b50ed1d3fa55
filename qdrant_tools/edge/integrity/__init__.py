"""Is what is on the disk what was acknowledged? Checksums, the engine's log, and how far a collection has got."""
