"""What the records look like: each notebook tells one story and trains nothing."""
