"""What every request this server sends out goes through: the guard against internal addresses, TLS, bounds."""
