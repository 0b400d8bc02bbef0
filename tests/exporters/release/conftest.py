from tests.exporters.release.places import place, s3_server

__all__ = ["place", "s3_server"]
