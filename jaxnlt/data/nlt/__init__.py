"""The builder of H2E's three natural long-tailed benchmarks."""
