"""A job processor: threads that bill customers from a queue in SQLite, and lose nothing when they are told to stop."""
