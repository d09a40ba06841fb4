"""The S3 server of samples, for tests."""

from samples.s3_server import BUCKET, s3_server

__all__ = ["BUCKET", "s3_server"]
