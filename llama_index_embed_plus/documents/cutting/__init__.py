"""Blocks of a document -> sentences, units, stretches: the passages that an encoder reads whole."""
