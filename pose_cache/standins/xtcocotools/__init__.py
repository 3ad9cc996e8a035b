"""Stands in for xtcocotools, see `pose_cache.standins`."""
