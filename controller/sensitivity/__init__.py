"""What each unit loses when it alone is compressed, and what uniform pruning loses."""
