"""What works without a compiler: the pure-Python twins of the native parts."""
