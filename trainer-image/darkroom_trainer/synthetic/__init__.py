"""Images that cost no camera and no labelling: rendered from a seed, with exact classes, boxes and masks."""
