"""Decisions about TuningSweeps."""
