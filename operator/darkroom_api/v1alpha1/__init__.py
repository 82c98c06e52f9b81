"""API version v1alpha1 of the group darkroom.dev."""
