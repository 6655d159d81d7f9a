"""Speed against peers, both sides in one run on the same cores."""
