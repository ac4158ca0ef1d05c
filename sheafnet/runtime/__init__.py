"""Runs: plan, hosts, coordinator, run directory, and the thin shell of Ray actors."""
