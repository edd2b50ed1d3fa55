"""What leaves this machine: a model to a hub, and collections to a program that asks for them."""
