"""What simple rules make of the same clips: every result must be better than these."""
