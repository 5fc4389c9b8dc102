"""What the JSON API reads from the store."""
