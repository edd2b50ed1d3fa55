"""The files of a folder of collections, and the engine's shards that are open on them."""
