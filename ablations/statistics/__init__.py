"""Statistics of a finding, from numbers alone."""
