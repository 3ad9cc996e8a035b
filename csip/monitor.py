"""How long work tells its caller where it stands; the one protocol of both packages, so that a monitor serves either."""

from pose_cache.monitor import Monitor, Silent

__all__ = ["Monitor", "Silent"]
