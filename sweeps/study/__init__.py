"""The Optuna study behind a sweep: where it is kept, its trials, and who is alive."""
