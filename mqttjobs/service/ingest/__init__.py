"""Reports become values, changes and jobs."""
