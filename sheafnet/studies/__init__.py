"""What is done with runs: the tables of one, comparisons of methods, sweeps over keys, scaling."""
