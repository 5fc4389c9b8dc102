"""What the JSON API answers with."""
