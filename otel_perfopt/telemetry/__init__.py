"""Everything that knows OpenTelemetry: names, instruments, latencies, spans and the wrapt decorators."""
