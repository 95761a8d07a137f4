"""What the appliance tells the outside: probes and status. Reads `Status`, and nothing else."""
