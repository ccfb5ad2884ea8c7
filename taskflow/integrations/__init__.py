"""What TaskFlow says to the world outside: e-mail, webhooks, files; with timeouts, retries, idempotency keys."""
