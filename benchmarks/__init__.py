"""Scripts that measure layerbench itself: docs/benchmarks.md has their figures."""
