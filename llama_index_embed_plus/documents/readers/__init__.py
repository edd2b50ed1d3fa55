"""What reads a file of one family of formats: its content -> blocks and facts."""
