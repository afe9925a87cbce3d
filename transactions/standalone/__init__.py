"""Programs that run without the rest of the project, for people who need not trust it."""
