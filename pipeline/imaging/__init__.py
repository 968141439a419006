"""Pure numerical kernels on arrays and core types. No files, no configuration."""
