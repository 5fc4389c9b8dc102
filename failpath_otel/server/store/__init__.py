"""Events and what follows from them, in SQLite or PostgreSQL."""
