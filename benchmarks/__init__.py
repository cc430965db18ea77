"""What the library costs beside its peers, as ratios: ``uv run --group bench python -m benchmarks``."""
