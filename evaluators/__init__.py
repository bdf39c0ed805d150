"""What a policy is worth: quality by examples, latency by table, size by counting."""
