"""Queries, judgements and a system -> every metric per query, and whether another system is better."""
