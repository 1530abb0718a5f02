"""Work that survives the process that does it."""
