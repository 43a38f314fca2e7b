"""Records that outlive this process: directories of deployments, journals, and leases with their owners."""
