"""Losses by name: what each computes, which options it takes, and the module that the trainer calls.

The losses are sentence-transformers'. Ours are NT-Xent, and the weights per row of the ranking losses, which carry the
certainty of a click model into training.
"""
