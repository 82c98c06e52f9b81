"""The pure core: every decision, no IO. Time, randomness and environment are arguments."""
