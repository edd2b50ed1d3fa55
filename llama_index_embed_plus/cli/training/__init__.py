"""Commands that train models, judge them and let them serve."""
