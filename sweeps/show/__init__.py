"""What a sweep looks like: tables, figures, progress and status. Nothing here runs a trial."""
