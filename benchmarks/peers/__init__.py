"""Small adapters over other libraries, for benchmarks and the conformance table."""
