"""How fast the service is, as ratios to what its database can do. See docs/performance.md."""
