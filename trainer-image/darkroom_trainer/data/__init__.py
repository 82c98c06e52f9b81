"""From files on a volume to batches on a device."""
