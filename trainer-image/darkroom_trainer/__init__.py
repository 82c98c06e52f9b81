"""The built-in vision trainer: one config in, a checkpoint, a model and an account of the time out."""
