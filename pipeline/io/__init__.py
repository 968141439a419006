"""Reading and writing files: the only place that knows file formats."""
