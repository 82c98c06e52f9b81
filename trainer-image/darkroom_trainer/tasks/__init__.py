"""What can be learned from images: one module per task."""
