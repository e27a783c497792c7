"""Strategies that come with the package, one noun per file, each with a file in `conf/strategy`."""
