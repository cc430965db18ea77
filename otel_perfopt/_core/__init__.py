"""Pure state machines: no clock, lock, thread, loop, I/O or telemetry."""
