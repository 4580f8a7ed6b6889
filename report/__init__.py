"""Tables and reports over a finished run."""
