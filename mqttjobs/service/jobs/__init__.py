"""From a job that is made to an outcome that is written and told."""
