"""Whether a trained model may serve: held-out queries, what was forgotten, the report, the model card, the pictures."""
