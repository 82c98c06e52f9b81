"""What a person sees of a run: a page, a model card, TensorBoard's files, a progress bar."""
