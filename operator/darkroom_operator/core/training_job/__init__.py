"""Decisions about one TrainingJob."""
