"""Progress of long work, reported to the caller; the one protocol of both packages."""

from pose_cache.monitor import Monitor, Silent

__all__ = ["Monitor", "Silent"]
