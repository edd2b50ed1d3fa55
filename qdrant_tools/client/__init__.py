"""One location -> one client, and every call to it with this project's errors."""
