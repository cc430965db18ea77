"""A tier for caches in Redis or Valkey, which processes on many machines share."""

try:
    import redis as _  # noqa: F401 - only to say what is missing
except ImportError as error:
    from otel_perfopt.errors import MissingExtra

    raise MissingExtra("otel_perfopt_redis needs redis-py: pip install 'otel-perfopt[redis]'") from error

from otel_perfopt_redis.tier import RedisTier

__all__ = ("RedisTier",)
