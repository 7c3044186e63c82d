"""What is to be run, and what is asked of it: designed grids and searches. No study here."""
