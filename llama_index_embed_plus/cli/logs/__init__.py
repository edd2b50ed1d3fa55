"""Commands about retrieval logs: what is in them, what they teach, and what they say of a system that runs."""
