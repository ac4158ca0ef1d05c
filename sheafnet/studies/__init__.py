"""What is done with runs: tables now; comparisons, sweeps and reports build on it."""
