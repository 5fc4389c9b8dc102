"""The server: takes events, stores them, and shows runs. Needs the extra ``[server]``."""
