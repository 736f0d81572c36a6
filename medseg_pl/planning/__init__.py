"""Plans: layout detection, fingerprint, planner and configuration file."""
