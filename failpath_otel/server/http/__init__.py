"""What every route needs of a request and an answer."""
