"""A shop: products in SQLite, prices from a service that cannot be relied on, orders written in batches."""
