"""Benchmarks: every figure the package reports, and the programs that print them."""
